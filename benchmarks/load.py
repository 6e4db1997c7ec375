"""Requests of many clients, from their own process: `python -m benchmarks.load PORT` with a `Load` as JSON on stdin.

Each client has one connection and sends its next request after the answer to the last one. With a rate it also waits
until the request is due, and the time of an answer counts from then. It prints the milliseconds of each answer as
JSON. It imports nothing of the service, so it starts at once.
"""

import asyncio
import json
import secrets
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import uvloop

_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A request to send. In path and body `{n}` is the number of the request modulo `numbers`, `{run}` is random."""

    path: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    clients: int
    seconds: float
    rate: float | None = None
    numbers: int = sys.maxsize
    status: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The milliseconds of each answer, and the seconds of all together."""

    took: Sequence[float]
    seconds: float

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return len(self.took) / self.seconds

    def percentile(self, percent: int) -> float:
        """Returns a percentile of the answers in milliseconds."""
        return statistics.quantiles(self.took, n=100, method="inclusive")[percent - 1]


class _Sender:
    """The clients. One counter numbers their requests."""

    def __init__(self, load: Load, port: int) -> None:
        self._load = load
        self._port = port
        self._run = secrets.token_hex(4)
        self._next = 0
        self._took: list[float] = []
        head = {"Host": "bench", "Content-Type": "application/json", **load.headers}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in head.items())

    async def send(self) -> Answers:
        pairs = [await asyncio.open_connection("127.0.0.1", self._port) for _ in range(self._load.clients)]
        self._start = time.perf_counter()
        await asyncio.gather(*(self._client(reader, writer) for reader, writer in pairs))
        return Answers(took=self._took, seconds=time.perf_counter() - self._start)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            number, sent_at = self._next, time.perf_counter()
            self._next += 1
            if rate := self._load.rate:
                sent_at = self._start + number / rate
                await asyncio.sleep(sent_at - time.perf_counter())
            if sent_at >= self._start + self._load.seconds:
                break
            writer.write(self._request(number % self._load.numbers))
            await self._answer(reader)
            self._took.append((time.perf_counter() - sent_at) * 1000)
        writer.close()

    def _request(self, number: int) -> bytes:
        texts = self._load.path, self._load.body
        path, body = (text.replace("{n}", str(number)).replace("{run}", self._run) for text in texts)
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        return f"{self._load.method} {path} HTTP/1.1\r\n{self._head}{length}\r\n{body}".encode()

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(_END)
        if int(head[9:12]) != self._load.status:
            raise RuntimeError(head.decode())
        left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        while left > 0:
            left -= len(await reader.read(left))


def main() -> None:
    """Sends the load of standard input."""
    load = Load(**json.load(sys.stdin))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(asdict(runner.run(_Sender(load, int(sys.argv[1])).send())), sys.stdout)


if __name__ == "__main__":
    main()
