"""The outermost layer: request id, body limit, access log, metrics, and the handler of unexpected errors.

Plain ASGI, because it must see every response, including streamed ones, at little cost.
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

from app.domain.address import parse_address
from app.observability import HTTP_SECONDS, digest_of, where
from app.routers.problems import problem
from app.routers.rates import headers_of

MAX_BODY_BYTES = 8 * 1024
# The code that nginx uses; it appears only in our log and metrics.
_CLIENT_CLOSED_REQUEST = 499
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{8,64}")
# Called every few seconds, so only their failures are logged.
_PROBES = {"/livez", "/readyz", "/metrics"}
_ABOUT_A_KNOWN_TOKEN = {HTTPStatus.CONFLICT, HTTPStatus.GONE}
_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}
_HEADERS = {
    "Cache-Control": "no-store",
    # Our pages have inline styles and no scripts. Swagger UI has a policy of its own.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

log = structlog.get_logger()


class RequestMiddleware:
    """Wraps the application. FastAPI's error handlers are inside."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send, _request_id(scope))
        with structlog.contextvars.bound_contextvars(request_id=answer.request_id):
            try:
                await self._serve(scope, receive, answer)
            except ClientDisconnect:
                answer.status = _CLIENT_CLOSED_REQUEST
            finally:
                _log(scope, answer)

    async def _serve(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if _loses_its_body(scope):
            detail = "Send a request with a body without the header Upgrade. In Java, use HttpClient.Version.HTTP_1_1."
            await problem(400, "bad_request", detail)(scope, receive, answer.send)
            return
        body = await _read(receive)
        if body is None:
            response = problem(413, "payload_too_large", f"The body is larger than {MAX_BODY_BYTES} bytes.")
            await response(scope, receive, answer.send)
            return
        try:
            receive = _Replay(body, receive)
            await self._app(scope, receive, answer.send)
            if stream := scope.get("state", {}).get("stream"):
                await stream(receive, answer.send)
        except ClientDisconnect:
            raise
        except Exception as error:
            log.error("request_crashed", error=type(error).__name__, where=where(error.__traceback__))
            if not answer.status:
                response = problem(500, "internal_error", "An internal error occurred.")
                await response(scope, receive, answer.send)


@dataclass(slots=True)
class _Answer:
    """Forwards the response and adds the headers that all responses have."""

    _scope: Scope
    _send: Send
    request_id: str
    status: int = 0
    started: float = field(default_factory=time.perf_counter)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            if expires_at := self._scope.get("state", {}).get("key_expires_at"):
                headers["X-API-Key-Expires"] = f"{expires_at:%Y-%m-%dT%H:%M:%SZ}"
            for name, value in headers_of(self._scope).items():
                headers[name] = value
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


class _Replay:
    """A `receive` that first returns the body that was already read, then continues with the connection."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._messages: list[MutableMapping[str, object]] = [{"type": "http.request", "body": body}]
        self._receive = receive

    async def __call__(self) -> Message:
        return self._messages.pop() if self._messages else await self._receive()


async def _read(receive: Receive) -> bytes | None:
    """Reads the whole body; returns None as soon as it is too large.

    Raises:
        ClientDisconnect: the rest will not arrive. The part that did may look complete and must not be processed.
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


def _loses_its_body(scope: Scope) -> bool:
    """Returns whether the server takes the body for another protocol, as it does after a header Upgrade.

    A registration would otherwise be accepted without its facts.
    """
    headers = dict(scope["headers"])
    has_body = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
    return b"upgrade" in headers and has_body


def _request_id(scope: Scope) -> str:
    """Returns the caller's request id if it is valid, or a new one."""
    sent = dict(scope["headers"]).get(b"x-request-id", b"")
    return sent.decode() if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(16)


def _log(scope: Scope, answer: _Answer) -> None:
    """Logs the route's template, never the path, which contains a BizToken: known tokens appear by their digest."""
    route = getattr(scope.get("route"), "path", "none")
    seconds = time.perf_counter() - answer.started
    method = scope["method"] if scope["method"] in _METHODS else "OTHER"
    state = scope.get("state", {})
    # A stream lasts as long as its client wants.
    if "stream" not in state:
        HTTP_SECONDS.labels(method, route, answer.status).observe(seconds)
    write = log.debug if route in _PROBES and answer.status == HTTPStatus.OK else log.info
    fields = {"method": method, "route": route, "status": answer.status, "duration_ms": round(seconds * 1000, 1)}
    if address := parse_address((scope.get("client") or ("",))[0]):
        fields["address"] = str(address)
    if caller := state.get("caller"):
        fields["key_id"] = caller.id
    # Another text may be an ID number in the wrong place, which a digest would not hide.
    biz_token = state.get("biz_token") or scope.get("path_params", {}).get("biz_token")
    if biz_token and (answer.status < HTTPStatus.BAD_REQUEST or answer.status in _ABOUT_A_KNOWN_TOKEN):
        fields["token"] = digest_of(biz_token)
    write("request", **fields)
