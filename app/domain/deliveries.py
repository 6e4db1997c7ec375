"""Deliveries of events to webhook endpoints: how an attempt ended, and what follows from that."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Fault(StrEnum):
    """Why an attempt failed. The value is what the API shows."""

    DNS = "dns"
    REFUSED_ADDRESS = "refused_address"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    INVALID_ANSWER = "invalid_answer"
    HTTP_STATUS = "http_status"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How an attempt ended: with an HTTP status, or with a fault before one. `fault` is None after a 2xx.

    `head` is the begin of the body, without control characters. `detail` explains a fault in one sentence. `address`
    is the one that was connected to.
    """

    duration_ms: int
    status: int | None = None
    fault: Fault | None = None
    detail: str | None = None
    head: str | None = None
    address: str | None = None
    retry_after: timedelta | None = None
