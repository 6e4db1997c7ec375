"""The log: one JSON object on a line, allow-listed fields, no texts of exceptions, and libraries from WARNING on."""

import asyncio
import io
import json
import logging
import time
from contextlib import redirect_stderr
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from app.observability import Throttle, configure_logging, where

pytestmark = pytest.mark.usefixtures("restored_logging")

SECRET = "张三 000000199001011234"


class Log:
    """Captures the log on standard error."""

    def __init__(self, level: str = "INFO") -> None:
        self._stream = io.StringIO()
        with redirect_stderr(self._stream):
            configure_logging(level)

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The logged objects, without their timestamps."""
        lines = [json.loads(line) for line in self.text.splitlines()]
        assert all(datetime.fromisoformat(line.pop("timestamp")).tzinfo is UTC for line in lines)
        return lines


@pytest.fixture
def log() -> Log:
    return Log()


def fail() -> None:
    raise ValueError(SECRET)


FAILED_AT = f"{__file__}:{fail.__code__.co_firstlineno + 1}"


def test_event_is_one_json_object_on_one_line(log: Log) -> None:
    structlog.get_logger().info("retrieved", verification=7, step="Store", error_code=None)
    structlog.get_logger().warning("slow")

    assert log.lines == [
        {"event": "retrieved", "level": "info", "verification": 7, "step": "Store", "error_code": None},
        {"event": "slow", "level": "warning"},
    ]


def test_field_that_is_not_allow_listed_is_dropped(log: Log) -> None:
    structlog.get_logger().info("received", status=202, biz_token=SECRET, name=SECRET, url=SECRET, exception=SECRET)

    assert log.lines == [{"event": "received", "level": "info", "status": 202}]


def test_field_with_a_leading_underscore_is_dropped(log: Log) -> None:
    structlog.get_logger().info("received", _name=SECRET)

    assert log.lines == [{"event": "received", "level": "info"}]


def test_bound_and_context_fields_are_filtered(log: Log) -> None:
    structlog.contextvars.bind_contextvars(request_id="r-1", id_card=SECRET)
    structlog.get_logger().bind(route="/v1/callbacks", extra=SECRET).info("answered")

    assert log.lines == [{"event": "answered", "level": "info", "request_id": "r-1", "route": "/v1/callbacks"}]


def test_exception_is_logged_by_type_and_place_without_its_text(log: Log) -> None:
    try:
        fail()
    except ValueError as error:
        structlog.get_logger().exception("caught")
        structlog.get_logger().error("given", exc_info=error)
        structlog.get_logger().error("triple", exc_info=(ValueError, error, error.__traceback__))

    seen = {"level": "error", "error": "ValueError", "where": FAILED_AT}
    assert log.lines == [{"event": "caught"} | seen, {"event": "given"} | seen, {"event": "triple"} | seen]


def test_exc_info_without_an_exception_adds_no_fields(log: Log) -> None:
    structlog.get_logger().error("calm", exc_info=True)

    assert log.lines == [{"event": "calm", "level": "error"}]


def test_exception_that_was_not_raised_has_an_unknown_place(log: Log) -> None:
    structlog.get_logger().error("given", exc_info=ValueError(SECRET))

    assert log.lines == [{"event": "given", "level": "error", "error": "ValueError", "where": "unknown"}]


def test_events_below_the_level_are_not_logged(log: Log) -> None:
    structlog.get_logger().debug("detail")

    assert log.text == ""


def test_level_can_be_raised() -> None:
    log = Log("ERROR")
    structlog.get_logger().warning("slow")
    structlog.get_logger().error("broken")

    assert log.lines == [{"event": "broken", "level": "error"}]


@pytest.mark.parametrize(
    "name", ["httpx", "httpcore", "uvicorn.access", "uvicorn.error", "sqlalchemy.engine", "asyncio"]
)
def test_libraries_log_nothing_below_warning(log: Log, name: str) -> None:
    logging.getLogger(name).debug("GET https://example.com/?BizToken=%s", SECRET)
    logging.getLogger(name).info("GET https://example.com/?BizToken=%s", SECRET)

    assert log.text == ""


def test_warning_of_a_library_has_our_format(log: Log) -> None:
    logging.getLogger("uvicorn.error").warning("Exceeded concurrency limit.", extra={"name_of_person": SECRET})

    assert log.lines == [{"event": "Exceeded concurrency limit.", "level": "warning", "logger": "uvicorn.error"}]


def test_exception_of_a_library_is_logged_by_type_and_place(log: Log) -> None:
    try:
        fail()
    except ValueError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application", stack_info=True)

    assert log.lines == [
        {
            "event": "Exception in ASGI application",
            "level": "error",
            "logger": "uvicorn.error",
            "error": "ValueError",
            "where": FAILED_AT,
        }
    ]


def test_message_of_a_library_is_logged_without_its_arguments(log: Log) -> None:
    logging.getLogger("sqlalchemy.pool").warning("Connection %s is broken", SECRET)

    assert log.lines == [{"event": "Connection %s is broken", "level": "warning", "logger": "sqlalchemy.pool"}]


async def test_unhandled_task_failure_is_logged_without_its_text(log: Log) -> None:
    task = asyncio.create_task(asyncio.to_thread(fail))
    await asyncio.wait([task])
    error = task.exception()

    asyncio.get_running_loop().call_exception_handler({"message": "Task failed", "exception": error, "task": task})

    assert log.lines == [
        {"event": "Task failed", "level": "error", "logger": "asyncio", "error": "ValueError", "where": FAILED_AT}
    ]


def test_place_without_a_traceback_is_unknown() -> None:
    assert where(None) == "unknown"


def test_throttle_admits_each_key_once_per_interval_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    throttle = Throttle(600.0, 3)

    first = [throttle.admit(key) for key in ("a", "a", "b", "c", "d", "a", "d")]
    now += 599.9
    same_interval = [throttle.admit(key) for key in ("a", "d")]
    now += 0.1
    next_interval = [throttle.admit(key) for key in ("d", "a", "a")]

    assert first == [True, False, True, True, False, False, False]
    assert (same_interval, next_interval) == ([False, False], [True, True, False])
