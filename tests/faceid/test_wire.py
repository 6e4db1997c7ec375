"""Connections to Tencent: whatever arrives is handed over, and every trouble is one that httpx has a name for."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import certifi
import httpx
import pytest

from app.faceid.wire import Wire
from tests.servers import write_certificate

BODY = bytes(range(256)) * 8192  # 2 MiB, far more than a reader takes at once
HEAD = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
SLICE = 16 * 1024

Speak = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's certificate that is trusted here."""
    write_certificate(tmp_path)
    monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "certificate.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    return context


@asynccontextmanager
async def served(speak: Speak, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The address of a server that answers each request so."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await speak(writer)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", ssl=context)
    async with server:
        yield f"{'https' if context else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def whole(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + BODY)
    await writer.drain()


async def whole_and_good_bye(writer: asyncio.StreamWriter) -> None:
    await whole(writer)
    writer.close()


async def little_by_little(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    for start in range(0, len(BODY), SLICE):
        writer.write(BODY[start : start + SLICE])
        await asyncio.sleep(0.002)


async def half_and_good_bye(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + BODY[: len(BODY) // 2])
    writer.close()
    await asyncio.sleep(0)


async def half_and_reset(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    await writer.drain()
    await asyncio.sleep(0.05)
    at_once = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)  # RST in place of FIN
    writer.transport.abort()


async def half_and_silence(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    await asyncio.sleep(20)


def client(read_seconds: float = 20) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=Wire(connections=1), timeout=httpx.Timeout(20, read=read_seconds))


async def test_a_body_arrives_in_large_pieces() -> None:
    async with served(whole) as url, client() as http, http.stream("GET", url) as response:
        pieces = [piece async for piece in response.aiter_raw()]

    assert b"".join(pieces) == BODY
    assert max(map(len, pieces)) > 64 * 1024


async def test_a_body_arrives_over_tls(context: ssl.SSLContext) -> None:
    async with served(whole, context) as url, client() as http:
        for _ in range(3):
            assert (await http.get(url)).content == BODY


async def test_what_comes_little_by_little_is_collected() -> None:
    async with served(little_by_little) as url, client() as http, http.stream("GET", url) as response:
        pieces = [piece async for piece in response.aiter_raw()]

    assert b"".join(pieces) == BODY
    assert len(pieces) < len(BODY) / SLICE / 2


async def test_a_certificate_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")

    async with served(whole, context) as url, client() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(url)


async def test_a_connection_that_is_lost_right_after_the_handshake_is_an_error(
    context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start_tls(*_: object, **__: object) -> None:
        """As asyncio does where the connection is lost before the one who asked comes to look at it."""

    async with served(whole, context) as url, client() as http:
        monkeypatch.setattr(asyncio.get_running_loop(), "start_tls", start_tls)
        with pytest.raises(httpx.ConnectError):
            await http.get(url)


async def test_a_connection_that_was_closed_while_it_was_idle_is_not_used_again() -> None:
    async with served(whole_and_good_bye) as url, client() as http:
        for _ in range(3):
            assert (await http.get(url)).content == BODY
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("speak", "error"),
    [
        (half_and_good_bye, httpx.RemoteProtocolError),
        (half_and_reset, httpx.ReadError),
        (half_and_silence, httpx.ReadTimeout),
    ],
)
async def test_half_a_body_is_an_error(speak: Speak, error: type[Exception]) -> None:
    async with served(speak) as url, client(read_seconds=0.2) as http:
        with pytest.raises(error):
            await http.get(url)


async def test_nobody_there_is_an_error() -> None:
    async with served(whole) as url:
        pass
    async with client() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(url)
