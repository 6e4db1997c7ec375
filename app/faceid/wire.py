"""Connections that hand over all that has arrived at once.

The usual ones of httpx wake up for every 64 KiB, and over TLS for every record of 16 KiB: for a video of 12 MB that is
a thousand times, and half of what receiving it costs. These do for every 512 KiB, and where the line is too slow
for that, fifty times a second.
"""

import asyncio
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import httpcore
import httpx

_PIECE_BYTES = 512 * 1024
# How long a piece may take to fill: not at all at the beginning of an answer, and twice as long with every piece, so
# that only the end of a long one is seen that much later.
_FIRST_PATIENCE_SECONDS = 0.001
_LAST_PATIENCE_SECONDS = 0.02


class Wire(httpx.AsyncHTTPTransport):
    """What `httpx.AsyncHTTPTransport` is, over such connections, at most `connections` of them."""

    def __init__(self, *, connections: int) -> None:
        # In place of the parent's, which has no argument for the backend.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            max_connections=connections,
            keepalive_expiry=httpx.Limits().keepalive_expiry,
            network_backend=_Backend(),
        )


class _Backend(httpcore.AsyncNetworkBackend):
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        with _httpcore_errors(httpcore.ConnectTimeout, httpcore.ConnectError):
            async with asyncio.timeout(timeout):
                _, incoming = await asyncio.get_running_loop().create_connection(_Incoming, host, port)
        return _Stream(incoming)


class _Incoming(asyncio.BufferedProtocol):
    """What has arrived and was not read yet. The loop writes it to where it is read from."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.error: Exception | None = None
        self.is_over = False
        self._buffer = memoryview(bytearray(_PIECE_BYTES))
        self._size = 0
        self._news = asyncio.Event()
        self._patience = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none, but looks like one

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer[self._size :]

    def buffer_updated(self, nbytes: int) -> None:
        self._size += nbytes
        if self._size == _PIECE_BYTES:
            self.transport.pause_reading()
        if self._size == _PIECE_BYTES or not self._patience:
            self._news.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._patience, self._news.set)

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    def _end(self, error: Exception | None) -> None:
        self.error, self.is_over = self.error or error, True
        self._news.set()

    def write(self, data: bytes) -> None:
        """Say something; the answer is to be read as soon as it begins."""
        self._patience = 0.0
        self.transport.write(data)

    async def read(self) -> memoryview:
        """What there is, once there is something; nothing at the end. It is good until the reader waits again."""
        if not self._size and not self.is_over:
            self._news.clear()
            await self._news.wait()
        data = self._buffer[: self._size]
        if not data and self.error:
            raise self.error
        if self._size == _PIECE_BYTES:
            self.transport.resume_reading()
        if self._timer:
            self._timer.cancel()
        self._size, self._timer = 0, None
        self._patience = min(max(2 * self._patience, _FIRST_PATIENCE_SECONDS), _LAST_PATIENCE_SECONDS)
        return data


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, incoming: _Incoming) -> None:
        self._incoming = incoming

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _httpcore_errors(httpcore.ReadTimeout, httpcore.ReadError):
            async with asyncio.timeout(timeout):
                return cast("bytes", await self._incoming.read())  # h11 copies it at once

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._incoming.write(buffer)  # a kilobyte; whether it arrives, the answer tells

    async def aclose(self) -> None:
        self._incoming.transport.abort()  # all was said, or nobody listens any more

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        incoming = self._incoming
        with _httpcore_errors(httpcore.ConnectTimeout, httpcore.ConnectError):
            async with asyncio.timeout(timeout):
                secured = await asyncio.get_running_loop().start_tls(
                    incoming.transport, incoming, ssl_context, server_hostname=server_hostname
                )
        if secured is None:
            raise httpcore.ConnectError
        incoming.transport = secured
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # asked of one that is idle: whether the other side has closed it
            return self._incoming.is_over
        return self._incoming.transport.get_extra_info(info)


@contextmanager
def _httpcore_errors(timed_out: type[Exception], failed: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise timed_out from error
    except OSError as error:
        raise failed from error
