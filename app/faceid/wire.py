"""Connections that hand over all that has arrived at once, parsed where it lies.

Those of httpx wake up for every 64 KiB, over TLS for every record of 16 KiB, and copy each piece five times: of what it
costs to receive a video of 12 MB, that is more than half. These wake up for every 512 KiB, where the line is too slow
for that fifty times a second, and copy a piece once. What a request is, how connections are shared and how troubles are
called stays httpx's and httpcore's business; answers are parsed by llhttp (`httptools`), as under uvicorn.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import cast

import httpcore
import httpx
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

_PIECE_BYTES = 512 * 1024
_HEAD_BYTES = 64 * 1024  # of an answer, at most
# How long a piece may take to fill: not at all at the beginning of an answer, and twice as long with every piece, so
# that only the end of a long one is seen that much later.
_FIRST_PATIENCE_SECONDS = 0.001
_LAST_PATIENCE_SECONDS = 0.02
_IDLE_SECONDS = 5.0  # as httpx keeps connections that nobody uses


class Wire(httpx.AsyncHTTPTransport):
    """What `httpx.AsyncHTTPTransport` is, over such connections, at most `connections` of them.

    For HTTP/1.1, and requests whose length is known.
    """

    def __init__(self, *, connections: int) -> None:
        # In place of the parent's, which has no argument for a pool.
        self._pool = _Pool(httpx.create_ssl_context(trust_env=False), connections)


class _Pool(httpcore.AsyncConnectionPool):
    def __init__(self, context: ssl.SSLContext, connections: int) -> None:
        super().__init__(ssl_context=context, max_connections=connections)
        self._context = context

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        return _Connection(origin, self._context if origin.scheme == b"https" else None)


class _State(Enum):
    NEW = auto()
    BUSY = auto()
    IDLE = auto()
    CLOSED = auto()


class _Connection(httpcore.AsyncConnectionInterface):
    """One connection, as httpcore's pool knows it. It is made by its first request."""

    def __init__(self, origin: httpcore.Origin, context: ssl.SSLContext | None) -> None:
        self._origin = origin
        self._context = context
        self._incoming: _Incoming | None = None
        self._state = _State.NEW
        self._idle_since = 0.0

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Sends the request; returns when the head of the answer is there."""
        if self._state not in {_State.NEW, _State.IDLE}:
            raise httpcore.ConnectionNotAvailable
        self._state = _State.BUSY
        timeouts = request.extensions.get("timeout", {})
        try:
            wanted = await _written(request)
            incoming = self._incoming = self._incoming or await self._connect(timeouts.get("connect"))
            incoming.write(wanted)  # a kilobyte; whether it arrives, the answer tells
            answer = _Answer(incoming, timeouts.get("read"))
            await answer.begin()
        except BaseException:
            await self.aclose()
            raise
        return httpcore.Response(answer.status, headers=answer.headers, content=_Body(self, answer))

    async def _connect(self, seconds: float | None) -> "_Incoming":
        host, port = self._origin.host.decode(), self._origin.port
        with _httpcore_errors(httpcore.ConnectTimeout, httpcore.ConnectError):
            async with asyncio.timeout(seconds):
                loop = asyncio.get_running_loop()
                _, incoming = await loop.create_connection(_Incoming, host, port, ssl=self._context)
        return incoming

    async def release(self, *, is_reusable: bool) -> None:
        """The answer was read, or is of no more interest."""
        if is_reusable:
            self._state, self._idle_since = _State.IDLE, time.monotonic()
        else:
            await self.aclose()

    async def aclose(self) -> None:
        self._state = _State.CLOSED
        if self._incoming:
            self._incoming.transport.abort()  # all was said, or nobody listens any more

    def can_handle_request(self, origin: httpcore.Origin) -> bool:
        return origin == self._origin

    def is_available(self) -> bool:
        return self.is_idle()

    def has_expired(self) -> bool:
        is_late = time.monotonic() - self._idle_since > _IDLE_SECONDS
        return self.is_idle() and (is_late or self._incoming is None or self._incoming.has_news)

    def is_idle(self) -> bool:
        return self._state is _State.IDLE

    def is_closed(self) -> bool:
        return self._state is _State.CLOSED


class _Answer:
    """An answer (RFC 9112) on its way in: the head, and what was parsed of the body and not taken yet."""

    def __init__(self, incoming: "_Incoming", seconds: float | None) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_complete = False
        self.is_reusable = False
        self._incoming = incoming
        self._seconds = seconds
        self._is_begun = False
        self._head_bytes = 0
        self._pieces: list[bytes] = []
        self._parser = HttpResponseParser(self)

    async def begin(self) -> None:
        """Returns when the head is there."""
        size = 0
        while not self._is_begun:
            size += await self._read()
            if size > _HEAD_BYTES and not self._is_begun:
                raise httpcore.RemoteProtocolError("the head of the answer is too large")

    async def piece(self) -> bytes:
        """What has come of the body since the last one; nothing at its end."""
        while not self._pieces and not self.is_complete:
            await self._read()
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)  # mostly of one, which is not copied

    async def _read(self) -> int:
        with _httpcore_errors(httpcore.ReadTimeout, httpcore.ReadError):
            async with asyncio.timeout(self._seconds):
                data = await self._incoming.read()
        if not data:
            self._end()
            return 0
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.is_reusable = False
            if not self.is_complete:
                raise httpcore.RemoteProtocolError("the answer is not HTTP") from error
        return len(data)

    def _end(self) -> None:
        """The other side has closed, which ends a body that does not say its length, and no other."""
        names = {name.lower() for name, _ in self.headers}
        if not self._is_begun or names & {b"content-length", b"transfer-encoding"}:
            raise httpcore.RemoteProtocolError("the connection ended within an answer")
        self.is_complete = True

    # What follows is called by the parser.

    def on_message_begin(self) -> None:
        """Something comes behind the answer that nobody asked for."""
        self.is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_begun:  # it trails the body
            return
        self.headers.append((name, value))
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > _HEAD_BYTES:  # all of it may have come in one piece
            raise httpcore.RemoteProtocolError("the head of the answer is too large")

    def on_headers_complete(self) -> None:
        if self._is_begun:
            return
        self.status = self._parser.get_status_code()
        self._is_begun = self.status >= httpx.codes.OK  # or else it is informational, and the answer follows
        if not self._is_begun:
            self.headers.clear()

    def on_body(self, data: bytes) -> None:
        if not self.is_complete:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        if self._is_begun and not self.is_complete:
            self.is_complete, self.is_reusable = True, self._parser.should_keep_alive()


class _Body:
    """The body of an answer, as httpcore's pool knows it."""

    def __init__(self, connection: _Connection, answer: _Answer) -> None:
        self._connection = connection
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self._answer.piece():
            yield piece

    async def aclose(self) -> None:
        await self._connection.release(is_reusable=self._answer.is_complete and self._answer.is_reusable)


class _Incoming(asyncio.BufferedProtocol):
    """What has arrived and was not read yet. The loop writes it to where it is read from."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._error: Exception | None = None
        self._is_over = False
        self._buffer = memoryview(bytearray(_PIECE_BYTES))
        self._size = 0
        self._news = asyncio.Event()
        self._patience = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def has_news(self) -> bool:
        """Whether something has come, or the end."""
        return bool(self._size) or self._is_over

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none, but looks like one

    def get_buffer(self, _: int) -> memoryview:
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
        self._error, self._is_over = self._error or error, True
        self._news.set()

    def write(self, data: bytes) -> None:
        """Say something; the answer is to be read as soon as it begins."""
        self._patience = 0.0
        self.transport.write(data)

    async def read(self) -> memoryview:
        """What there is, once there is something; nothing at the end. It is good until the reader waits again."""
        if not self.has_news:
            self._news.clear()
            await self._news.wait()
        data = self._buffer[: self._size]
        if not data and self._error:
            raise self._error
        if self._size == _PIECE_BYTES:
            self.transport.resume_reading()
        if self._timer:
            self._timer.cancel()
        self._size, self._timer = 0, None
        self._patience = min(max(2 * self._patience, _FIRST_PATIENCE_SECONDS), _LAST_PATIENCE_SECONDS)
        return data


async def _written(request: httpcore.Request) -> bytes:
    """A request as its bytes (RFC 9112, section 3)."""
    lines = [b"%b %b HTTP/1.1" % (request.method, request.url.target)]
    lines += [b"%b: %b" % header for header in request.headers]
    if any(sign in line for line in lines for sign in (b"\r", b"\n", b"\0")):
        raise httpcore.LocalProtocolError("a header has more than a line")
    content = [part async for part in cast("AsyncIterator[bytes]", request.stream)]
    return b"\r\n".join([*lines, b"", b"".join(content)])


@contextmanager
def _httpcore_errors(timed_out: type[Exception], failed: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise timed_out from error
    except OSError as error:
        raise failed from error
