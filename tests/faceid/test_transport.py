"""The HTTP transport over real sockets: every body arrives whole, and every failure is an httpx error."""

import asyncio
import socket
import ssl
import struct
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import certifi
import httpx
import pytest

from app.faceid.transport import AiohttpTransport
from tests.support.servers import write_certificate

# 2 MiB, far more than is read at once.
BODY = bytes(range(256)) * 8192
HEAD = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
SLICE = 16 * 1024

Respond = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's TLS context, whose certificate the transport trusts."""
    write_certificate(tmp_path)
    monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "certificate.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    return context


@asynccontextmanager
async def served(respond: Respond, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Starts a server that answers each request by `respond`; yields its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await respond(writer)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", ssl=context)
    async with server:
        yield f"{'https' if context else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def whole(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + BODY)
    await writer.drain()


async def whole_then_close(writer: asyncio.StreamWriter) -> None:
    await whole(writer)
    writer.close()


async def slowly(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    for start in range(0, len(BODY), SLICE):
        writer.write(BODY[start : start + SLICE])
        await asyncio.sleep(0.002)


async def half_then_close(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + BODY[: len(BODY) // 2])
    writer.close()
    await asyncio.sleep(0)


async def half_then_reset(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    await writer.drain()
    await asyncio.sleep(0.05)
    linger_zero = struct.pack("ii", 1, 0)
    # Without lingering, closing sends RST instead of FIN.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
    writer.transport.abort()


async def half_then_silence(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    await asyncio.sleep(20)


async def malformed_chunk(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await writer.drain()
    # So that the client reads the head on its own.
    await asyncio.sleep(0.05)
    writer.write(b"malformed\r\n")
    await asyncio.sleep(20)


def client(read_seconds: float = 20) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=AiohttpTransport(connections=1), timeout=httpx.Timeout(20, read=read_seconds))


async def test_fast_body_arrives_in_large_pieces() -> None:
    async with served(whole) as url, client() as http, http.stream("GET", url) as response:
        pieces = [piece async for piece in response.aiter_raw()]

    assert b"".join(pieces) == BODY
    assert max(map(len, pieces)) > 64 * 1024


async def test_body_over_tls_arrives_whole(context: ssl.SSLContext) -> None:
    async with served(whole, context) as url, client() as http:
        for _ in range(3):
            assert (await http.get(url)).content == BODY


async def test_slow_body_is_batched() -> None:
    async with served(slowly) as url, client() as http, http.stream("GET", url) as response:
        pieces = [piece async for piece in response.aiter_raw()]

    assert b"".join(pieces) == BODY
    assert len(pieces) < len(BODY) / SLICE / 2


async def test_untrusted_certificate_is_rejected(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")

    async with served(whole, context) as url, client() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(url)


async def test_certificate_of_another_name_is_rejected(context: ssl.SSLContext) -> None:
    async with served(whole, context) as url, client() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(url.replace("127.0.0.1", "localhost"))


async def test_connection_closed_while_idle_is_not_reused() -> None:
    async with served(whole_then_close) as url, client() as http:
        for _ in range(3):
            assert (await http.get(url)).content == BODY
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("respond", "error"),
    [
        (half_then_close, httpx.RemoteProtocolError),
        (half_then_reset, httpx.RemoteProtocolError),
        (half_then_silence, httpx.ReadTimeout),
        (malformed_chunk, httpx.ReadTimeout),
    ],
)
async def test_incomplete_body_is_an_error(respond: Respond, error: type[Exception]) -> None:
    async with served(respond) as url, client(read_seconds=0.2) as http:
        with pytest.raises(error):
            await http.get(url)


async def test_refused_connection_is_an_error() -> None:
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
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nabc0123456789"
LAST_ON_CONNECTION = PLAIN.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")
EARLY_HINT = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"


def sending(answer: bytes, *, size: int = 10**6, closes: bool = False) -> Respond:
    """Sends the answer in pieces of `size` bytes."""

    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(answer), size):
            writer.write(answer[start : start + size])
            await asyncio.sleep(0)
        if closes:
            writer.close()

    return respond


@pytest.mark.parametrize("size", [1, 2, 7, 10**6])
@pytest.mark.parametrize(
    "answer", [PLAIN, CHUNKED, UNTIL_CLOSE, LAST_ON_CONNECTION, EARLY_HINT + PLAIN, EARLY_HINT * 2 + CHUNKED]
)
async def test_response_is_the_same_however_it_is_framed_and_split(answer: bytes, size: int) -> None:
    async with served(sending(answer, size=size, closes=answer is UNTIL_CLOSE)) as url, client() as http:
        for _ in range(2):
            response = await http.get(url)

            assert (response.status_code, response.content) == (200, b"abc0123456789")
            assert "Link" not in response.headers
            assert "Trailer" not in response.headers


@pytest.mark.parametrize(
    ("answer", "connections"),
    [(PLAIN, 1), (CHUNKED, 1), (EARLY_HINT + PLAIN, 1), (LAST_ON_CONNECTION, 3), (PLAIN + PLAIN, 3)],
)
async def test_connection_is_reused_unless_the_response_forbids_it(answer: bytes, connections: int) -> None:
    seen = set()

    async def respond(writer: asyncio.StreamWriter) -> None:
        seen.add(writer.get_extra_info("peername"))
        writer.write(answer)

    async with served(respond) as url, client() as http:
        for _ in range(3):
            assert (await http.get(url)).content == b"abc0123456789"

    assert len(seen) == connections


async def test_connection_with_unread_body_is_not_reused() -> None:
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
        PLAIN + b"junk",
        b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 200_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_malformed_response_is_an_error(answer: bytes) -> None:
    async with served(sending(answer)) as url, client() as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(url)


async def test_connection_closed_without_response_is_an_error() -> None:
    async with served(sending(b"", closes=True)) as url, client() as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(url)


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nb", "a\0b"])
async def test_header_with_line_break_is_not_sent(value: str) -> None:
    async with served(whole) as url, client() as http:
        with pytest.raises(httpx.LocalProtocolError):
            await http.get(url, headers={"X-One": value})


async def test_cancelled_request_frees_its_connection() -> None:
    async with served(half_then_silence) as url, client() as http:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await http.get(url)


async def test_requests_beyond_the_connection_limit_wait() -> None:
    async with served(sending(PLAIN)) as url, client() as http:
        answers = await asyncio.gather(*(http.get(url) for _ in range(5)))

    assert [answer.content for answer in answers] == [b"abc0123456789"] * 5


async def test_late_second_response_is_not_taken_for_the_next_one() -> None:
    """Alone, aiohttp queues what arrives on an idle connection and gives it to the next request."""
    late = PLAIN.replace(b"abc", b"XYZ")

    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(PLAIN)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(late)

    async with served(respond) as url, client() as http:
        await http.post(url)
        await asyncio.sleep(0.1)
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post(url)

        assert (await http.post(url)).content == b"abc0123456789"


async def test_unresponsive_address_is_raced_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(sending(PLAIN)) as url:
        port = httpx.URL(url).port
        with unresponsive("127.0.0.2", port):

            async def resolve(*_: object, **__: object) -> list[dict[str, object]]:
                common: dict[str, object] = {
                    "hostname": "",
                    "port": port,
                    "family": socket.AF_INET,
                    "proto": 0,
                    "flags": 0,
                }
                return [common | {"host": host} for host in ("127.0.0.2", "127.0.0.1")]

            monkeypatch.setattr(aiohttp.DefaultResolver, "resolve", resolve)
            async with client() as http, asyncio.timeout(2):
                response = await http.get(f"http://two-addresses.example:{port}")

    assert response.content == b"abc0123456789"


@contextmanager
def unresponsive(host: str, port: int | None) -> Iterator[None]:
    """Listens with a full backlog: Linux then drops every further attempt to connect."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        yield


async def test_error_quotes_nothing_of_the_response() -> None:
    async with served(sending(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1a-name")) as url, client() as http:
        with pytest.raises(httpx.RemoteProtocolError) as raised:
            await http.get(url)

    assert "a-name" not in "".join(traceback.format_exception(raised.value))


async def test_cookies_are_not_kept_by_the_transport() -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(LAST_ON_CONNECTION.replace(b"OK\r\n", b"OK\r\nSet-Cookie: a=b\r\n"))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server, AiohttpTransport(connections=1) as transport:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for _ in range(2):
            response = await transport.handle_async_request(httpx.Request("GET", url))
            await response.aread()

    assert b"cookie" not in heads[1].lower()
