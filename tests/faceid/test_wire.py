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
from tests.support.servers import write_certificate

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


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\nA;name=value\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
)
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nabc0123456789"
UNTIL_THE_END = b"HTTP/1.1 200 OK\r\n\r\nabc0123456789"
FAREWELL = PLAIN.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")
EARLY_HINT = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"


def saying(answer: bytes, *, size: int = 10**6, is_over: bool = False) -> Speak:
    """Says it in pieces of that size."""

    async def speak(writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(answer), size):
            writer.write(answer[start : start + size])
            await asyncio.sleep(0)
        if is_over:
            writer.close()

    return speak


@pytest.mark.parametrize("size", [1, 2, 7, 10**6])
@pytest.mark.parametrize(
    "answer", [PLAIN, CHUNKED, UNTIL_THE_END, FAREWELL, EARLY_HINT + PLAIN, EARLY_HINT * 2 + CHUNKED]
)
async def test_an_answer_is_the_same_however_it_is_framed_and_cut(answer: bytes, size: int) -> None:
    async with served(saying(answer, size=size, is_over=answer is UNTIL_THE_END)) as url, client() as http:
        for _ in range(2):
            response = await http.get(url)

            assert (response.status_code, response.content) == (200, b"abc0123456789")
            assert "Link" not in response.headers
            assert "Trailer" not in response.headers


@pytest.mark.parametrize(
    ("answer", "connections"),
    [(PLAIN, 1), (CHUNKED, 1), (EARLY_HINT + PLAIN, 1), (FAREWELL, 3), (PLAIN + b"junk", 3), (PLAIN + PLAIN, 3)],
)
async def test_a_connection_is_used_again_unless_something_is_odd_about_it(answer: bytes, connections: int) -> None:
    seen = set()

    async def speak(writer: asyncio.StreamWriter) -> None:
        seen.add(writer.get_extra_info("peername"))
        writer.write(answer)

    async with served(speak) as url, client() as http:
        for _ in range(3):
            assert (await http.get(url)).content == b"abc0123456789"

    assert len(seen) == connections


async def test_a_connection_is_not_used_again_after_half_of_an_answer_was_read() -> None:
    async with served(whole) as url, client() as http:
        async with http.stream("GET", url):
            pass
        assert (await http.get(url)).content == BODY


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 200_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n",
        EARLY_HINT * 3000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_what_is_no_answer_is_an_error(answer: bytes) -> None:
    async with served(saying(answer)) as url, client() as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(url)


async def test_nothing_at_all_is_an_error() -> None:
    async with served(saying(b"", is_over=True)) as url, client() as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(url)


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nb", "a\0b"])
async def test_a_header_that_would_be_two_is_not_sent(value: str) -> None:
    async with served(whole) as url, client() as http:
        with pytest.raises(httpx.LocalProtocolError):
            await http.get(url, headers={"X-One": value})


async def test_who_gives_up_takes_the_connection_along_and_no_other() -> None:
    async with served(half_and_silence) as url, client() as http:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await http.get(url)


async def test_more_requests_than_connections_wait_for_one() -> None:
    async with served(saying(PLAIN)) as url, client() as http:
        answers = await asyncio.gather(*(http.get(url) for _ in range(5)))

    assert [answer.content for answer in answers] == [b"abc0123456789"] * 5
