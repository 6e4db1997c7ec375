"""A server in the place of Tencent that says what a test wants, and a client that calls it."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

from pydantic import SecretStr

from app.domain.media import MediaKind
from app.faceid.client import DetectAnswer, FaceIdClient
from app.faceid.credentials import FaceIdSettings
from simulator.authentication import KeyPair
from simulator.options import DEMO_CREDENTIALS

SUCCESS = b'{"Response":{"DetectInfo":"{\\"Text\\":{\\"ErrCode\\":0}}","RequestId":"r-1"}}'
Speak = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Kept:
    """A sink in memory."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def client_of(
    url: str, credentials: KeyPair = DEMO_CREDENTIALS, *, seconds: float = 20, max_bytes: int = 2**25
) -> FaceIdClient:
    """Returns a client that calls this endpoint."""
    settings = FaceIdSettings(
        tencentcloud_secret_id=credentials.secret_id,
        tencentcloud_secret_key=SecretStr(credentials.secret_key),
        tencentcloud_token=SecretStr(credentials.token) if credentials.token else None,
        faceid_endpoint=url,
        faceid_timeout_seconds=seconds,
        faceid_max_bytes=max_bytes,
    )
    return FaceIdClient(settings, connections=1)


def media_in(answer: DetectAnswer[Kept]) -> dict[MediaKind, bytes]:
    """Returns the media of an answer."""
    return {kind: sink.data for kind, sink in answer.media.items()}


@asynccontextmanager
async def peer(speak: Speak) -> AsyncIterator[tuple[str, list[tuple[str, bytes]]]]:
    """Starts a server that answers each request by `speak`; yields its URL, and the heads and bodies it received."""
    received: list[tuple[str, bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
                received.append((head, await reader.readexactly(int(length[1]) if length else 0)))
                await speak(writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    # Connections are served in tasks that are cancelled here. Since Python 3.12 a closing server waits for its
    # connections, and one that only sends never notices that its client has gone.
    speaking: list[asyncio.Task[None]] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        speaking.append(asyncio.create_task(serve(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", received
        for task in speaking:
            task.cancel()
        await asyncio.gather(*speaking, return_exceptions=True)


def saying(body: bytes, *, status: str = "200 OK", headers: str = "", length: int | None = None) -> Speak:
    """Sends a response with this body."""
    head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body) if length is None else length}\r\n\r\n"

    async def speak(writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode() + body)

    return speak


@contextmanager
def unresponsive(host: str, port: int = 0) -> Iterator[int]:
    """Listens with a full backlog: Linux then drops every further attempt to connect. Yields the port."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        yield port


def in_our_names(values: dict[str, Any]) -> dict[str, Any]:
    """Returns Tencent's values under the names of this service, without empty ones."""
    spaced = {name.replace("Compares", "CompareS").replace("Comparem", "CompareM"): values[name] for name in values}
    snake = {re.sub("(?<!^)(?=[A-Z])", "_", name).lower(): value for name, value in spaced.items()}
    return {name: value for name, value in snake.items() if value not in {None, ""}}
