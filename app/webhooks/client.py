"""Sends webhooks: one POST with a deadline, to addresses that are checked, whose answer is read up to a limit."""

import asyncio
import re
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from typing import Self

import httpcore
import httpx
from pydantic import BaseModel, Field, field_validator

from app.domain.deliveries import Answer, Fault
from app.domain.egress import parse_networks
from app.errors import InvalidRequestError
from app.tls import client_context
from app.webhooks.transport import CONNECT_SECONDS, GuardedBackend, ReceiverError, Resolve, Resolver

TOTAL_SECONDS = 15.0
MAX_ANSWER_BYTES = 64 * 1024
MAX_HEAD_CHARACTERS = 2048
MAX_URL_CHARACTERS = 2048

_PORTS, _SUCCESS, _REDIRECTS = range(1, 65536), range(200, 300), range(300, 400)
# C0 except tab and line feed, DEL, C1, surrogates, and the marks that reverse the direction of text.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_HOST = re.compile(rb"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?|[0-9a-f]*:[0-9a-f:.]+")
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
# httpcore has no common base of its errors.
_HTTP_ERRORS = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)
_USER_AGENT = f"faceid-results/{version('faceid-results')} (webhooks)"


class WebhookSettings(BaseModel):
    """Where webhooks may be sent to, and how many at a time."""

    webhook_allowed_networks: str = ""
    webhook_ca_file: Path | None = None
    webhook_concurrency: int = Field(default=64, ge=1, le=512)

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        parse_networks(text)
        return text


@dataclass(frozen=True, slots=True)
class Receiver:
    """The parsed URL of a receiver."""

    url: httpx.URL

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses a URL.

        Raises:
            InvalidRequestError: it is malformed, or has a part that webhooks do not support.
        """
        try:
            url = httpx.URL(text)
        except (httpx.InvalidURL, UnicodeError):
            raise _invalid("is malformed") from None
        if len(text) > MAX_URL_CHARACTERS or _CONTROLS.search(text):
            raise _invalid(f"must have at most {MAX_URL_CHARACTERS} characters, without control characters")
        if url.scheme not in {"http", "https"} or not _HOST.fullmatch(url.raw_host):
            raise _invalid("must begin with https:// or http:// and have a valid host")
        if url.userinfo or url.fragment:
            raise _invalid("must have neither a user nor a fragment")
        if url.port is not None and url.port not in _PORTS:
            raise _invalid("must have a port from 1 to 65535")
        return cls(url)

    @property
    def host(self) -> str:
        """The host in ASCII. The rest of the URL may contain secrets."""
        return self.url.raw_host.decode()

    @property
    def is_encrypted(self) -> bool:
        """Whether the receiver is called over TLS."""
        return self.url.scheme == "https"

    @property
    def port(self) -> int:
        """The port, of the scheme if the URL has none."""
        return self.url.port or (443 if self.is_encrypted else 80)


class WebhookClient:
    """Sends messages, each over a connection of its own: httpcore's pool takes longer than a new connection.

    Redirects, proxies of the environment and compression are not supported. Close it with `close`.

    Args:
        settings: the settings.
        resolve: returns the addresses of a host; by default the resolver of the system.
        total_seconds: the deadline of a message, including all waiting.

    Raises:
        ConfigurationError: WEBHOOK_CA_FILE cannot be read.
    """

    def __init__(
        self, settings: WebhookSettings, resolve: Resolve | None = None, *, total_seconds: float = TOTAL_SECONDS
    ) -> None:
        self._total_seconds = total_seconds
        self._resolver = Resolver()
        allowed = parse_networks(settings.webhook_allowed_networks)
        self._guards = {
            is_encrypted: GuardedBackend(resolve or self._resolver, allowed, is_encrypted=is_encrypted)
            for is_encrypted in (True, False)
        }
        self._tls = client_context("WEBHOOK_CA_FILE", settings.webhook_ca_file)

    async def check(self, receiver: Receiver) -> None:
        """Checks the addresses of a receiver without connecting. A name that is not resolved yet is accepted.

        Raises:
            InvalidRequestError: an address is forbidden. The sentence says which setting would open it, if any.
        """
        try:
            await self._guards[receiver.is_encrypted].addresses_of(receiver.host, receiver.port)
        except ReceiverError as error:
            if error.fault is Fault.REFUSED_ADDRESS:
                raise InvalidRequestError(error.detail, code="refused_address") from None

    async def send(self, receiver: Receiver, headers: Mapping[str, str], body: bytes) -> Answer:
        """Posts a message and returns how that ended, after `total_seconds` at the latest."""
        started, read = time.monotonic(), _Read()
        fault, detail = None, None
        try:
            async with asyncio.timeout(self._total_seconds):
                await self._post(receiver, headers, body, read)
        except (ReceiverError, TimeoutError, OSError, *_HTTP_ERRORS) as error:
            # A status counts, however the rest of the answer ends.
            if read.status is None:
                fault, detail = _fault_of(error)
        if read.status is not None and read.status not in _SUCCESS:
            fault, detail = Fault.HTTP_STATUS, _words_for(read.status)
        return Answer(
            duration_ms=round((time.monotonic() - started) * 1000),
            status=read.status,
            fault=fault,
            detail=detail,
            head=_head(read.body),
            address=read.address,
            retry_after=_retry_after(read.retry_after),
        )

    async def _post(self, receiver: Receiver, headers: Mapping[str, str], body: bytes, read: "_Read") -> None:
        url = receiver.url
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=receiver.port, target=url.raw_path)
        request = httpcore.Request(
            "POST",
            target,
            headers=[
                ("Host", url.netloc),
                ("Content-Type", "application/json; charset=utf-8"),
                ("Content-Length", str(len(body))),
                ("User-Agent", _USER_AGENT),
                ("Accept-Encoding", "identity"),
                ("Connection", "close"),
                *headers.items(),
            ],
            content=body,
            extensions={"timeout": {"connect": CONNECT_SECONDS}},
        )
        async with httpcore.AsyncHTTPConnection(
            target.origin, self._tls, network_backend=self._guards[receiver.is_encrypted]
        ) as connection:
            response = await connection.handle_async_request(request)
            read.status = response.status
            read.address = response.extensions["network_stream"].get_extra_info("server_addr")[0]
            read.retry_after = dict(response.headers).get(b"retry-after", b"")
            async for piece in response.aiter_stream():
                read.body += piece
                if len(read.body) >= MAX_ANSWER_BYTES:
                    break

    def close(self) -> None:
        """Ends the look-ups of names."""
        self._resolver.close()


@dataclass(slots=True)
class _Read:
    """The parts of an answer that have arrived."""

    status: int | None = None
    address: str | None = None
    retry_after: bytes = b""
    body: bytes = b""


def _invalid(fault: str) -> InvalidRequestError:
    return InvalidRequestError(f"The URL {fault}.", code="invalid_url")


def _fault_of(error: Exception) -> tuple[Fault, str]:
    match error:
        case ReceiverError():
            return error.fault, error.detail
        case TimeoutError():
            return Fault.TIMEOUT, "No answer arrived in time."
        case httpcore.ConnectTimeout():
            return Fault.CONNECT, f"No connection was made within {CONNECT_SECONDS:.0f} s."
        case httpcore.ConnectError() if tls := _tls_error(error):
            return Fault.TLS, tls
        case httpcore.ConnectError():
            return Fault.CONNECT, "The host did not accept the connection."
        case _:
            return Fault.INVALID_ANSWER, "The connection ended before a complete HTTP answer."


def _tls_error(error: BaseException) -> str | None:
    """Returns why TLS failed, in one sentence; None if another layer did."""
    cause = error.__context__
    while cause and not isinstance(cause, ssl.SSLError):
        cause = cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"The certificate was rejected: {cause.verify_message}."
    return "TLS could not be negotiated." if cause else None


def _words_for(status: int) -> str:
    if status in _REDIRECTS:
        return f"The answer was {status}, which leads elsewhere. Webhooks follow no redirects: change the URL."
    return f"The answer was {status}."


def _head(body: bytes) -> str | None:
    """Returns the begin of an answer as text for people and for every database."""
    text = _CONTROLS.sub("", body[: 4 * MAX_HEAD_CHARACTERS].decode(errors="replace"))
    return text[:MAX_HEAD_CHARACTERS] or None


def _retry_after(value: bytes) -> timedelta | None:
    """Returns the span of a `Retry-After` in seconds or as a date; None if there is none."""
    text = value.decode("latin-1").strip()
    if _SECONDS.fullmatch(text):
        return timedelta(seconds=float(text))
    with suppress(ValueError, OverflowError):
        at = parsedate_to_datetime(text)
        return max((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC), timedelta())
    return None
