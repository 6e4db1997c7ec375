"""A receiver of webhooks: a real server on a loopback port that records requests and answers as a test says."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    """Returns an HTTP answer. A `_` in the name of a header is a hyphen."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} x\r\ncontent-length: {len(body)}\r\n{lines}\r\n".encode() + body


@dataclass(frozen=True, slots=True)
class Message:
    """A request as it arrived, with the names of its headers in lower case."""

    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Receiver:
    """The recorded messages, and what to answer: bytes, or None to stay silent."""

    port: int
    answer: Callable[[Message], bytes | None] = lambda _: NO_CONTENT
    messages: list[Message] = field(default_factory=list)
    connections: int = 0

    def url(self, path: str = "/hook", *, scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection."""
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                message = await _read(reader)
                self.messages.append(message)
                text = self.answer(message)
                if text is None:
                    await reader.read()
                    break
                writer.write(text)
                await writer.drain()
        writer.close()


async def _read(reader: asyncio.StreamReader) -> Message:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Message(first.split()[1], headers, body)


@asynccontextmanager
async def receiving(context: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Serves a receiver during the block."""
    receiver = Receiver(0)
    async with await asyncio.start_server(receiver.serve, "127.0.0.1", ssl=context) as server:
        receiver.port = server.sockets[0].getsockname()[1]
        yield receiver
