"""The outermost layer: request id, body limit, access log and metrics, and the last resort for what nobody caught.

Plain ASGI, because it must see every answer, streamed ones included, and must not cost much.
"""

import re
import secrets
import time
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from http import HTTPStatus

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.observability import HTTP_SECONDS, where
from app.routers.problems import problem

MAX_BODY_BYTES = 8 * 1024
_CLIENT_CLOSED_REQUEST = 499  # nginx's number; nobody is there to see it but our logs and metrics
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{8,64}")
_PROBES = {"/livez", "/readyz", "/metrics"}  # asked every few seconds: of interest when they fail
_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}

log = structlog.get_logger()


class Boundary:
    """Wraps the application; FastAPI's error handlers are inside of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, _request_id(scope))
        with structlog.contextvars.bound_contextvars(request_id=answer.request_id):
            try:
                await self._serve(scope, receive, answer)
            except ClientDisconnect:
                answer.status = _CLIENT_CLOSED_REQUEST
            finally:
                _tell(scope, answer)

    async def _serve(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        body = await _read(receive)
        if body is None:
            response = problem(413, "payload_too_large", f"The body is larger than {MAX_BODY_BYTES} bytes.")
            await response(scope, receive, answer.send)
            return
        try:
            await self._app(scope, _Replay(body, receive), answer.send)
        except Exception as error:
            log.error("request_crashed", error=type(error).__name__, where=where(error.__traceback__))
            if not answer.status:
                response = problem(500, "internal_error", "Something went wrong on our side.")
                await response(scope, receive, answer.send)


@dataclass(slots=True)
class _Answer:
    """Sends the answer on, with the headers that every one has."""

    _send: Send
    request_id: str
    status: int = 0
    started: float = field(default_factory=time.perf_counter)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


class _Replay:
    """A `receive` that hands out the body that was read already, and then goes on with the connection."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._messages: list[MutableMapping[str, object]] = [{"type": "http.request", "body": body}]
        self._receive = receive

    async def __call__(self) -> Message:
        return self._messages.pop() if self._messages else await self._receive()


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None as soon as it is too large.

    Raises:
        ClientDisconnect: the rest will not come. What came may look like a whole request and must not be taken for one.
    """
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY_BYTES:
            return None
    return body


def _request_id(scope: Scope) -> str:
    """The caller's own id if it is a plain one, or a new one."""
    told = dict(scope["headers"]).get(b"x-request-id", b"")
    return told.decode() if _REQUEST_ID.fullmatch(told) else secrets.token_hex(16)


def _tell(scope: Scope, answer: _Answer) -> None:
    """Logs the route's template, never the path: that one holds a BizToken."""
    route = getattr(scope.get("route"), "path", "none")
    seconds = time.perf_counter() - answer.started
    method = scope["method"] if scope["method"] in _METHODS else "OTHER"
    HTTP_SECONDS.labels(method, route, answer.status).observe(seconds)
    write = log.debug if route in _PROBES and answer.status == HTTPStatus.OK else log.info
    write("request", method=method, route=route, status=answer.status, duration_ms=round(seconds * 1000, 1))
