"""Logs and metrics. What is logged is an allow-list: a field that is not on it is dropped.

Personal data, BizTokens and secrets have no place in either: a verification appears by the number of its row, an
exception by its type and the line it came from, never by its text.
"""

import logging
import sys
import traceback
from types import TracebackType

import structlog
from prometheus_client import Counter, Gauge, Histogram
from structlog.typing import EventDict, Processor, WrappedLogger

_FIELDS = {
    *("event", "level", "timestamp", "logger", "error", "where"),
    *("request_id", "method", "route", "status", "duration_ms", "key_id"),
    *("verification", "step", "error_code", "removed", "concurrency"),
    *("sqlstate", "version", "database", "port"),
    *("account", "rule_id", "advice", "pending", "hours", "found", "known"),
    *("erased", "position", "hash", "persons"),
    *("_record", "_from_structlog"),  # what structlog notes for itself and takes out again
}

HTTP_SECONDS = Histogram(
    "faceid_http_request_seconds", "Time from request to the answer's last byte", ["method", "route", "status"]
)
CALL_SECONDS = Histogram(
    "faceid_upstream_call_seconds",
    "Time of a call to Tencent as a whole",
    ["action", "result"],
    buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
RECEIVED_BYTES = Counter("faceid_upstream_received_bytes_total", "Bytes of Tencent's answers", ["action"])
PAUSED = Gauge("faceid_paused", "1 for what waits for an operator", ["account", "rule_id", "error_code"])
PENDING = Gauge("faceid_pending_verifications", "Pending ones with less than so many hours left", ["less_than_hours"])
ERASED = Counter("faceid_erased_total", "Verifications whose media, or all, were erased when their time was over")
PERSONS = Gauge("faceid_persons_with_face", "Different persons of whom a face is stored, as of the last hour")
ALTERED = Counter("faceid_altered_total", "Times that something stored was not what had been sealed")
STEPS = Counter("faceid_retrieval_steps_total", "What was decided after a call", ["step"])


def configure_logging(level: str = "INFO") -> None:
    """Sends one JSON object a line to standard error, for our own events and for those of libraries from WARNING on.

    At CRITICAL our own are silent altogether: the command itself says what went wrong.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _exception_without_text,
        _allowed_only,
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
            foreign_pre_chain=[structlog.stdlib.add_logger_name, _first_words, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def where(tb: TracebackType | None) -> str:
    """The innermost line of a traceback, `file:line`."""
    frames = traceback.extract_tb(tb)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"


def _first_words(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Of a library's message the first line, before its arguments are put in: asyncio's further lines quote errors."""
    event["event"] = str(event["_record"].msg).partition("\n")[0]
    return event


def _exception_without_text(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    info = event.pop("exc_info", None)
    error = info[1] if isinstance(info, tuple) else sys.exception() if info is True else info
    if isinstance(error, BaseException):
        event.update(error=type(error).__name__, where=where(error.__traceback__))
    return event


def _allowed_only(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {name: value for name, value in event.items() if name in _FIELDS}
