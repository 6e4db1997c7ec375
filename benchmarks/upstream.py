"""A FaceID that costs next to nothing: it sends one prepared answer to every request.

`python -m benchmarks.upstream PORT VIDEO_BYTES [--media FILE] [--tls FOLDER] [--megabits N]`. It reads only the path of
a request.
"""

import argparse
import asyncio
import json
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from io import BytesIO
from pathlib import Path
from typing import cast

import uvloop

from app.domain.detection import Detection
from app.faceid.decode import decode_detect_info
from app.faceid.lifter import Lifter
from benchmarks import harness
from simulator.answers import Subject, detect_info
from simulator.media import media_of
from simulator.scenarios import Scenario
from tests.support.servers import write_certificate

_TICK_SECONDS = 0.01
_PERSON = "passed-bench"
MEDIA_PATH = "/media"
"""The path of the base64 alone, without JSON, which the floor receives."""


def answer_of(video_bytes: int, parts: frozenset[str] = frozenset("1234")) -> bytes:
    """Returns the JSON of a person who passed: by default with everything, a video of that size and three pictures."""
    subject = Subject(biz_token=_PERSON)
    result = detect_info(subject, Scenario(), parts=parts, video_bytes=video_bytes)
    return json.dumps({"Response": {"DetectInfo": result, "RequestId": "bench"}}, ensure_ascii=False).encode()


def base64_of(video_bytes: int) -> bytes:
    """Returns the media of the same answer, concatenated."""
    return b64encode(b"".join(media_of(_PERSON, video_bytes=video_bytes).values()))


def decoded(answer: bytes) -> Detection:
    """Returns the text of an answer, decoded as the client decodes it."""
    lifter = Lifter(BytesIO)
    lifter.feed(answer)
    detection = decode_detect_info(lifter.finish()).detection
    if detection is None:
        raise ValueError("The answer has no text.")
    return detection


class _Answers(asyncio.Protocol):
    """One connection. A request is complete when its head has ended and its announced bytes have arrived."""

    def __init__(self, whole: bytes, media: bytes, megabits: float | None) -> None:
        self._whole, self._media, self._megabits = whole, media, megabits
        self._received = b""
        self._sending: asyncio.Task[None] | None = None
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # The transports of uvloop do not derive from asyncio's.
        self._transport = cast("asyncio.WriteTransport", transport)

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
        # Without a date, the worker would doubt its clock.
        head = f"HTTP/1.1 200 OK\r\nDate: {formatdate(usegmt=True)}\r\nContent-Type: application/json\r\n"
        self._transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
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
    """Serves until it is cancelled: `media` at `MEDIA_PATH`, and `whole` at every other path."""
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
    """Runs such a server in another process and yields its address. With `tls` its certificate is in the folder."""
    arguments = [str(video_bytes)]
    if tls:
        write_certificate(folder)
        arguments += ["--tls", str(folder)]
    if megabits:
        arguments += ["--megabits", str(megabits)]
    async with harness.python("benchmarks.upstream", *arguments) as server:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.port}"


def main() -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("video_bytes", type=int)
    parser.add_argument("--media", type=Path)
    parser.add_argument("--tls", type=Path)
    parser.add_argument("--megabits", type=float)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        media = arguments.media.read_bytes() if arguments.media else base64_of(arguments.video_bytes)
        runner.run(
            serve(
                arguments.port, answer_of(arguments.video_bytes), media, tls=arguments.tls, megabits=arguments.megabits
            )
        )


if __name__ == "__main__":
    main()
