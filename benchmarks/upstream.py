"""A FaceID that costs next to nothing: one prepared answer, sent to whoever asks, over TLS and at a limited rate too.

`python -m benchmarks.upstream PORT VIDEO_BYTES [--media FILE] [--tls FOLDER] [--megabits N]`. Of what it is asked, it
looks at the path alone.
"""

import argparse
import asyncio
import json
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from benchmarks import stage
from simulator.answers import Subject, detect_info
from simulator.media import media_of
from simulator.scenarios import Scenario
from tests.support.servers import write_certificate

_TICK_SECONDS = 0.01
_PERSON = "passed-bench"
MEDIA_PATH = "/media"  # the base64 alone, without a line of JSON: what the floor receives


def answer_of(video_bytes: int, parts: frozenset[str] = frozenset("1234")) -> bytes:
    """The JSON of a person who passed: by default all of it, a video of that size and three pictures included."""
    subject = Subject(biz_token=_PERSON)
    result = detect_info(subject, Scenario(), parts=parts, video_bytes=video_bytes)
    return json.dumps({"Response": {"DetectInfo": result, "RequestId": "bench"}}, ensure_ascii=False).encode()


def base64_of(video_bytes: int) -> bytes:
    """The media of the same answer, one behind the other."""
    return b64encode(b"".join(media_of(_PERSON, video_bytes=video_bytes).values()))


class _Answers(asyncio.Protocol):
    """One connection: a request is whatever ends its head and has its announced bytes."""

    def __init__(self, whole: bytes, media: bytes, megabits: float | None) -> None:
        self._whole, self._media, self._megabits = whole, media, megabits
        self._received = b""
        self._sending: asyncio.Task[None] | None = None
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        if isinstance(transport, asyncio.WriteTransport) or hasattr(transport, "write"):
            self._transport = transport  # type: ignore[assignment]  # uvloop's have no base in common

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if end and len(body) >= int(length or 0):
            self._received = b""
            is_media = head.split(b" ", 2)[1] == MEDIA_PATH.encode()
            self._send(self._media if is_media else self._whole)

    def _send(self, body: bytes) -> None:
        if self._transport is None:
            return
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self._transport.write(head)
        if self._megabits is None:
            self._transport.write(body)
        else:
            self._sending = asyncio.create_task(self._pace(self._transport, body, self._megabits))

    async def _pace(self, transport: asyncio.WriteTransport, body: bytes, megabits: float) -> None:
        loop = asyncio.get_running_loop()
        start, sent = loop.time(), 0
        while sent < len(body) and not transport.is_closing():
            await asyncio.sleep(_TICK_SECONDS)
            due = min(int((loop.time() - start) * megabits * 125_000), len(body))
            transport.write(body[sent:due])
            sent = due


async def serve(
    port: int, whole: bytes, media: bytes, *, tls: Path | None = None, megabits: float | None = None
) -> None:
    """Answers for ever, at `MEDIA_PATH` with `media` and everywhere else with the whole."""
    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls / "certificate.pem", tls / "key.pem")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Answers(whole, media, megabits), "127.0.0.1", port, ssl=context)
    await server.serve_forever()


@asynccontextmanager
async def running(
    folder: Path, video_bytes: int, *, tls: bool = False, megabits: float | None = None
) -> AsyncIterator[str]:
    """The address of such a server in a process of its own; with `tls` its certificate is in the folder."""
    arguments = [str(video_bytes)]
    if tls:
        write_certificate(folder)
        arguments += ["--tls", str(folder)]
    if megabits:
        arguments += ["--megabits", str(megabits)]
    async with stage.python("benchmarks.upstream", *arguments) as server:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.port}"


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("video_bytes", type=int)
    parser.add_argument("--media", type=Path)
    parser.add_argument("--tls", type=Path)
    parser.add_argument("--megabits", type=float)
    asked = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        media = asked.media.read_bytes() if asked.media else base64_of(asked.video_bytes)
        runner.run(serve(asked.port, answer_of(asked.video_bytes), media, tls=asked.tls, megabits=asked.megabits))


if __name__ == "__main__":
    main()
