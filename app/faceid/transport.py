"""An httpx transport over aiohttp, for answers of many megabytes.

httpx's own transport wakes up for every 64 KiB (over TLS for every record of 16 KiB) and copies each piece five times.
For a video of 12 MB that is more than half of the CPU time. aiohttp parses in C and buffers between two reads, so this
transport reads less often and gets more at a time. It also races the addresses of a host (RFC 8305).

Callers still see httpx only: its requests, its responses, its exceptions.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import aiohttp
import httpx
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from app.tls import client_context

# aiohttp stops reading from the socket when it holds more than twice this. On a fast line pieces are thus of 256 to
# 512 KiB. Larger ones are slower, because they do not fit into the processor's cache.
_BUFFER_BYTES = 128 * 1024
# How long to let the next piece grow after one smaller than the buffer. The pause doubles with every such piece: short
# responses are not delayed, and the end of a long one is delayed by at most the longest pause.
_SHORTEST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.02
_IDLE_SECONDS = 5.0

# The first class that matches counts.
_ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (TimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientConnectionError, httpx.ReadError),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.ClientError, httpx.RemoteProtocolError),
    # aiohttp refuses line breaks in headers with a bare ValueError.
    (ValueError, httpx.LocalProtocolError),
)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends requests over at most `connections` connections, which are reused while they are idle for less than 5 s.

    Enter it, or the httpx client that owns it, before the first request. Redirects, cookies and compression are not
    handled here: responses are passed on as they are. The head of a response is limited by aiohttp (128 headers of
    8 KiB each).

    Args:
        connections: how many connections may be open.
        proxy: the URL of an HTTP proxy, with its user and password if it needs them; None for direct connections.
        ca_file: the certificates to trust, in PEM, instead of the public authorities.

    Raises:
        ConfigurationError: the file cannot be read or contains no certificate.
    """

    def __init__(self, *, connections: int, proxy: str | None = None, ca_file: Path | None = None) -> None:
        self._connections = connections
        self._proxy = proxy
        self._tls = client_context("FACEID_CA_FILE, or the ca_file of an account,", ca_file)
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        """Opens the session. aiohttp needs a running event loop for that."""
        self._session = aiohttp.ClientSession(
            connector=_Connector(
                limit=self._connections,
                keepalive_timeout=_IDLE_SECONDS,
                ssl=self._tls,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_BUFFER_BYTES,
            auto_decompress=False,
        )
        return self

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._session.close()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends the request and returns when the head of the response has arrived.

        Raises:
            httpx.TransportError: there is no response, or it is not HTTP.
        """
        timeouts = request.extensions.get("timeout", {})
        with _httpx_errors():
            response = await self._session.request(
                request.method,
                str(request.url),
                headers=[(name.decode(), value.decode()) for name, value in request.headers.raw],
                data=await request.aread() or None,
                allow_redirects=False,
                proxy=self._proxy,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=timeouts.get("pool"),
                    sock_connect=timeouts.get("connect"),
                    sock_read=timeouts.get("read"),
                ),
            )
        return httpx.Response(
            response.status, headers=response.raw_headers, stream=_Body(response, timeouts.get("read"))
        )


class _Connector(aiohttp.TCPConnector):
    """Rejects a pooled connection on which something arrived while it was idle.

    aiohttp would take a late second response for the answer to the next request, which may be another person's.
    """

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        if connection.protocol is None or connection.protocol.should_close:
            connection.close()
            raise aiohttp.ServerDisconnectedError
        return connection


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse, read_seconds: float | None) -> None:
        self._response = response
        self._read_seconds = read_seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content, pause = self._response.content, 0.0
        with _httpx_errors():
            while piece := await self._read():
                yield piece
                if len(piece) < _BUFFER_BYTES and not content.is_eof():
                    pause = min(max(2 * pause, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
                    await asyncio.sleep(pause)

    async def _read(self) -> bytes:
        # aiohttp's own timer stops at a malformed chunk, but does not report it.
        async with asyncio.timeout(self._read_seconds):
            return await self._response.content.readany()

    async def aclose(self) -> None:
        # Closes the connection as well, unless the body was read to its end.
        self._response.close()


@contextmanager
def _httpx_errors() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        translated = next(ours for theirs, ours in _ERRORS if isinstance(error, theirs))
        # Without aiohttp's message and without the cause: both may quote the response.
        raise translated(type(error).__name__) from None
