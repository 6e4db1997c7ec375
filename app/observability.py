"""Structured logs and metrics. Log fields are an allow-list: other fields are dropped.

Neither contains personal data, BizTokens or secrets. A verification appears by its row id and the digest of its token,
an exception by its type and the line that raised it, never by its text.
"""

import hashlib
import logging
import sys
import time
import traceback
from collections.abc import Hashable
from types import TracebackType

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from structlog.typing import EventDict, Processor, WrappedLogger

_ALLOWED_FIELDS = {
    *("event", "level", "timestamp", "logger", "error", "where"),
    *("request_id", "method", "route", "status", "duration_ms", "key_id", "address"),
    *("verification", "token", "step", "error_code", "removed", "concurrency"),
    *("cause", "sqlstate", "version", "database", "port"),
    *("account", "rule_id", "advice", "pending", "hours", "found", "known"),
    *("endpoint", "host", "fault", "delivery"),
    *("erased", "position", "hash", "persons", "since", "overdue", "checked", "free_bytes"),
    # Internal fields that structlog removes before rendering.
    *("_record", "_from_structlog"),
}

HTTP_SECONDS = Histogram(
    "faceid_http_request_seconds",
    "Seconds from the request to the last byte of the response",
    ["method", "route", "status"],
)
CALL_SECONDS = Histogram(
    "faceid_upstream_call_seconds",
    "Seconds of a whole call to Tencent",
    ["action", "result"],
    buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
RECEIVED_BYTES = Counter("faceid_upstream_received_bytes_total", "Bytes received from Tencent", ["action"])
DETAILS = CollectorRegistry()
"""Metrics that name accounts, rules or API keys. Only admins see them."""
PAUSED = Gauge(
    "faceid_paused",
    "1 for each pause that waits for an operator",
    ["account", "rule_id", "error_code"],
    registry=DETAILS,
)
PAUSES = Gauge("faceid_pauses", "Pauses that wait for an operator")
PENDING = Gauge(
    "faceid_pending_verifications",
    "Pending verifications with less than so many hours left, at most 10,000",
    ["less_than_hours"],
)
PENDING_RETRIEVALS = Gauge("faceid_pending_retrievals", "Verifications that have no result yet, at most 100,000")
PENDING_OLDEST = Gauge("faceid_pending_oldest_seconds", "Age of the oldest verification that has no result yet")
FIRST_DEADLINE = Gauge(
    "faceid_first_deadline_seconds", "Seconds until Tencent deletes the first pending result; NaN if none is pending"
)
DUE_OLDEST = Gauge("faceid_due_oldest_seconds", "How long the longest due verification has waited for a worker")
WORKERS_SEEN = Gauge("faceid_workers_seen", "Workers that have reported within a minute")
QUOTA_USED = Gauge(
    "faceid_quota_used_ratio", "Share of the allowed calls to Tencent in the last minute, of the busiest account"
)
ACCOUNT_QUOTA_USED = Gauge(
    "faceid_account_quota_used_ratio",
    "Share of the allowed calls to Tencent in the last minute",
    ["account"],
    registry=DETAILS,
)
DISK_FREE = Gauge("faceid_disk_free_bytes", "Free bytes of a disk that this process writes to", ["disk"])
DISK_RESERVE = Gauge("faceid_disk_reserve_bytes", "With fewer free bytes on the disk no media are fetched", ["disk"])
MEASURED_AT = Gauge(
    "faceid_measured_timestamp_seconds",
    "When the figures of the database were last read, in seconds since the epoch; they are outdated afterwards",
)
KEY_EXPIRES = Gauge(
    "faceid_api_key_expires_timestamp_seconds",
    "When an API key expires that does so within 14 days, in seconds since the epoch",
    ["key_id", "name"],
    registry=DETAILS,
)
EXPIRING_KEYS = Gauge("faceid_expiring_api_keys", "API keys that expire within 14 days, at most 100")
CLOCK_IN_DOUBT = Gauge("faceid_clock_in_doubt", "1 while nothing expires and nothing is erased, because of the clock")
ERASURE_STOPPED = Gauge("faceid_erasure_stopped", "1 while the erasure of expired data waits for an operator")
ERASED = Counter("faceid_erased_total", "Verifications whose media or text were erased after their retention")
PERSONS = Gauge("faceid_persons_with_face", "Different persons of whom a face is stored, updated hourly")
TAMPERED = Counter("faceid_altered_total", "Alarms: rows whose stored values could not be authenticated")
REDIRECTS_WITHOUT_TOKEN = Counter(
    "faceid_redirects_without_token_total", "Redirects with a valid state and no BizToken", ["rule_id"]
)
STREAMS = Gauge("faceid_streams", "Open streams of events")
DELIVERIES = Counter("faceid_deliveries_total", "Attempts to deliver an event to a webhook endpoint", ["result"])
DELIVERY_SECONDS = Histogram(
    "faceid_delivery_seconds",
    "Seconds of an attempt to deliver an event",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15),
)
DELIVERY_OLDEST = Gauge(
    "faceid_delivery_oldest_seconds", "How long the oldest due delivery has waited for an endpoint that does not fail"
)
DELIVERIES_WAITING = Gauge(
    "faceid_deliveries_waiting",
    "Deliveries that are not delivered yet, by the state of the endpoint, at most 100,000 in equal shares per endpoint",
    ["state"],
)
WEBHOOK_ENDPOINTS = Gauge("faceid_webhook_endpoints", "Webhook endpoints by state", ["state"])
STEPS = Counter("faceid_retrieval_steps_total", "Decisions after calls to Tencent", ["step"])


def configure_logging(level: str = "INFO") -> None:
    """Writes one JSON object per line to standard error: our events from `level` on, those of libraries from WARNING.

    At CRITICAL our events are dropped entirely, for commands that report errors themselves.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _drop_exception_text,
        _drop_unknown_fields,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=(
            structlog.ReturnLoggerFactory() if level == "CRITICAL" else structlog.PrintLoggerFactory(sys.stderr)
        ),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, _keep_first_line, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class Throttle:
    """Admits each key once per interval of so many seconds, and at most `limit` keys per interval."""

    def __init__(self, seconds: float, limit: int) -> None:
        self._seconds = seconds
        self._limit = limit
        self._counts: dict[Hashable, int] = {}
        self._began_at = time.monotonic()

    def admit(self, key: Hashable) -> bool:
        """Returns whether this is the first time of the key in the current interval."""
        now = time.monotonic()
        if now - self._began_at >= self._seconds:
            self._began_at, self._counts = now, {}
        if key not in self._counts and len(self._counts) >= self._limit:
            return False
        self._counts[key] = self._counts.get(key, 0) + 1
        return self._counts[key] == 1


def digest_of(biz_token: str) -> str:
    """Returns the digest under which the log mentions a token: `printf %s TOKEN | sha256sum | cut -c1-16`.

    A BizToken is random, so the digest does not reveal it.
    """
    return hashlib.sha256(biz_token.encode()).hexdigest()[:16]


def where(tb: TracebackType | None) -> str:
    """Returns the innermost line of a traceback as `file:line`."""
    frames = traceback.extract_tb(tb)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"


def _keep_first_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Keeps the first line of a library's message without its arguments; asyncio's further lines quote errors."""
    event["event"] = str(event["_record"].msg).partition("\n")[0]
    return event


def _drop_exception_text(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    info = event.pop("exc_info", None)
    error = info[1] if isinstance(info, tuple) else sys.exception() if info is True else info
    if isinstance(error, BaseException):
        event.update(error=type(error).__name__, where=where(error.__traceback__))
    return event


def _drop_unknown_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {name: value for name, value in event.items() if name in _ALLOWED_FIELDS}
