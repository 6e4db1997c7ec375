"""Deliveries of events to webhook endpoints: how an attempt ended, and what follows for the delivery and its endpoint.

A delivery has a schedule of ten attempts. An endpoint pauses as a whole if it cannot be reached, or after three
failures in a row. From then on one delivery at a time probes it, which costs no attempt of its schedule.
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from http import HTTPStatus
from typing import assert_never

from app.domain.events import Event, EventType, new_public_id
from app.domain.webhook_endpoint import MAX_CONCURRENCY, DisabledReason, EndpointState, WebhookEndpoint, disabled

SCHEDULE = (
    timedelta(),
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    *(timedelta(hours=hours) for hours in (2, 5, 10, 14, 20, 24)),
)
"""The time before each attempt, after the one before it."""

JITTER = 0.1
"""The share of a time that is added at random, so deliveries that failed together are not repeated together."""

PAUSES = timedelta(seconds=5), timedelta(minutes=5), timedelta(minutes=10)
"""The pauses of an endpoint after its first failures. All further ones are as long as the last."""

FAILING_AFTER = 3
"""After so many failures in a row an endpoint is failing."""

FAILING_AFTER_TIME = timedelta(minutes=15)
"""An endpoint that has failed for so long is failing."""

DISABLED_AFTER = timedelta(days=5)
"""An endpoint that has failed for so long is disabled."""

_MAX_RETRY_AFTER = timedelta(hours=1)
# How precisely the last success of a healthy endpoint is known. Otherwise each delivery would write the row.
_SUCCESS_PRECISION = timedelta(minutes=1)
_OVERLOADED = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


class Fault(StrEnum):
    """Why an attempt failed. The value is what the API shows."""

    DNS = "dns"
    REFUSED_ADDRESS = "refused_address"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    INVALID_ANSWER = "invalid_answer"
    HTTP_STATUS = "http_status"
    ALTERED = "altered"


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

    @property
    def is_of_endpoint(self) -> bool:
        """Whether the failure is one of the whole endpoint: another delivery would fail as well."""
        return self.fault is not Fault.HTTP_STATUS or self.status in _OVERLOADED


class DeliveryState(StrEnum):
    """The state of a delivery. A dropped one was held, and the client chose not to have it sent."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    DROPPED = "dropped"


class DeliveryPriority(IntEnum):
    """The order of claims. Replays wait for fresh events."""

    FRESH = 0
    REPLAY = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event for one endpoint. `step` is the number of attempts of its schedule that were made.

    A claim leases it until `due_at`, and only the newest claim may write a result.
    """

    id: int = 0
    endpoint_id: str
    event_id: int
    verification_id: int | None = None
    position: int
    state: DeliveryState = DeliveryState.PENDING
    priority: DeliveryPriority = DeliveryPriority.FRESH
    due_at: datetime | None
    claim: int = 0
    is_leased: bool = False
    step: int = 0
    attempts: int = 0
    created_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of a delivery, with the host of the URL as it was then. Earlier versions name no endpoint."""

    id: int = 0
    delivery_id: int
    endpoint_id: str | None = None
    at: datetime
    host: str
    address: str | None
    duration_ms: int
    status: int | None
    fault: Fault | None
    detail: str | None
    head: str | None


@dataclass(frozen=True, slots=True)
class Signals:
    """How the newest attempts at an endpoint ended. 95 % of them took at most `p95_ms`; None without attempts."""

    attempts: int
    failures: int
    p95_ms: int | None

    @property
    def successes(self) -> int:
        """The attempts that were answered by a 2xx."""
        return self.attempts - self.failures


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """The deliveries of an endpoint that a list contains; None or empty does not filter."""

    endpoint_id: str
    states: tuple[DeliveryState, ...] = ()
    types: tuple[EventType, ...] = ()
    start: datetime | None = None
    end: datetime | None = None


class ReplayKind(StrEnum):
    """The events that a replay sends: those that failed or were dropped, those without a delivery, or all."""

    FAILED = "failed"
    MISSING = "missing"
    ALL = "all"

    def includes(self, state: DeliveryState | None) -> bool:
        """Returns whether an event is sent whose delivery has this state; None if it has none. Open ones are not."""
        match self:
            case ReplayKind.FAILED:
                return state in {DeliveryState.FAILED, DeliveryState.DROPPED}
            case ReplayKind.MISSING:
                return state is None
            case ReplayKind.ALL:
                return state is not DeliveryState.PENDING
            case _:
                assert_never(self)


def new_delivery(
    endpoint: WebhookEndpoint, event: Event, now: datetime, priority: DeliveryPriority = DeliveryPriority.FRESH
) -> Delivery:
    """Returns a delivery of an event that has its position."""
    return Delivery(
        endpoint_id=endpoint.id,
        event_id=event.id,
        verification_id=event.verification_id,
        position=event.position or 0,
        priority=priority,
        due_at=now,
        created_at=now,
    )


def attempt_of(delivery: Delivery, endpoint: WebhookEndpoint, answer: Answer, at: datetime) -> Attempt:
    """Returns the record of an attempt."""
    return Attempt(
        delivery_id=delivery.id,
        endpoint_id=endpoint.id,
        at=at,
        host=endpoint.host,
        address=answer.address,
        duration_ms=answer.duration_ms,
        status=answer.status,
        fault=answer.fault,
        detail=answer.detail,
        head=answer.head,
    )


def state_event(before: WebhookEndpoint, after: WebhookEndpoint, now: datetime) -> Event | None:
    """Returns the event about a change of an endpoint's state that the other endpoints of its client receive."""
    kinds = {EndpointState.FAILING: EventType.ENDPOINT_FAILING, EndpointState.DISABLED: EventType.ENDPOINT_DISABLED}
    if after.state is before.state or after.state not in kinds:
        return None
    since = after.failing_since
    details = {
        "id": after.id,
        "host": after.host,
        "client": after.client,
        "state": after.state,
        "disabled_reason": after.disabled_reason,
        "failing_since": since and since.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "last_error": after.last_fault,
    }
    return Event(
        public_id=new_public_id(), type=kinds[after.state], client=after.client, at=now, details=json.dumps(details)
    )


def after(
    delivery: Delivery, endpoint: WebhookEndpoint, answer: Answer, *, begun_at: datetime, now: datetime, chance: float
) -> tuple[Delivery, WebhookEndpoint]:
    """Returns the delivery and its endpoint after an attempt.

    Args:
        delivery: the claimed delivery.
        endpoint: its endpoint, as it is now.
        answer: how the attempt ended.
        begun_at: when the attempt began.
        now: when it ended.
        chance: a random number from 0 to below 1, for the jitter.
    """
    tried = replace(delivery, attempts=delivery.attempts + 1, is_leased=False)
    if answer.fault is None:
        return replace(tried, state=DeliveryState.DELIVERED, due_at=None, ended_at=now), _succeeded(endpoint, now)
    failed = _failed(endpoint, answer, begun_at=begun_at, now=now, chance=chance)
    if endpoint.is_paused:
        return replace(tried, due_at=failed.paused_until), failed
    step = delivery.step + 1
    if step == len(SCHEDULE):
        return replace(tried, step=step, state=DeliveryState.FAILED, due_at=None, ended_at=now), failed
    return replace(tried, step=step, due_at=now + _wait(SCHEDULE[step], answer, chance)), failed


def without_event(delivery: Delivery, now: datetime) -> Delivery:
    """Ends a delivery whose event does not exist. Only a change of the database can be the cause."""
    return replace(delivery, state=DeliveryState.FAILED, due_at=None, is_leased=False, ended_at=now)


def repeated(delivery: Delivery, now: datetime, priority: DeliveryPriority = DeliveryPriority.FRESH) -> Delivery:
    """Returns the delivery with a new schedule that begins now. Its attempts until now stay."""
    return replace(
        delivery, state=DeliveryState.PENDING, priority=priority, due_at=now, step=0, is_leased=False, ended_at=None
    )


def _succeeded(endpoint: WebhookEndpoint, now: datetime) -> WebhookEndpoint:
    """Ends all trouble, and lets twice as many deliveries be in flight as before, up to the maximum."""
    is_new = endpoint.last_success_at is None or now - endpoint.last_success_at >= _SUCCESS_PRECISION
    is_disabled = endpoint.state is EndpointState.DISABLED
    return replace(
        endpoint,
        state=endpoint.state if is_disabled else EndpointState.ENABLED,
        failures=0,
        failing_since=None,
        pauses=0,
        paused_until=None,
        concurrency=min(2 * endpoint.concurrency, MAX_CONCURRENCY),
        last_success_at=now if is_new or endpoint.failures else endpoint.last_success_at,
    )


def _failed(
    endpoint: WebhookEndpoint, answer: Answer, *, begun_at: datetime, now: datetime, chance: float
) -> WebhookEndpoint:
    # An attempt that began before the pause is part of the same incident.
    if endpoint.is_paused and endpoint.last_failure_at and begun_at <= endpoint.last_failure_at:
        return endpoint
    failed = replace(
        endpoint,
        failures=endpoint.failures + 1,
        failing_since=endpoint.failing_since or now,
        last_failure_at=now,
        last_fault=answer.fault if answer.status is None else f"{answer.fault}:{answer.status}",
    )
    if answer.is_of_endpoint or failed.failures >= FAILING_AFTER:
        span = PAUSES[min(endpoint.pauses, len(PAUSES) - 1)]
        until = now + _wait(span, answer, chance)
        failed = replace(failed, pauses=endpoint.pauses + 1, paused_until=until, concurrency=1)
    return _with_state(failed, answer, now)


def _with_state(failed: WebhookEndpoint, answer: Answer, now: datetime) -> WebhookEndpoint:
    if failed.state is EndpointState.DISABLED:
        return failed
    if answer.status == HTTPStatus.GONE:
        return disabled(failed, DisabledReason.GONE, now)
    span = now - (failed.failing_since or now)
    if span >= DISABLED_AFTER:
        return disabled(failed, DisabledReason.FAILING, now)
    is_failing = failed.failures >= FAILING_AFTER or span >= FAILING_AFTER_TIME
    return replace(failed, state=EndpointState.FAILING) if is_failing else failed


def _wait(span: timedelta, answer: Answer, chance: float) -> timedelta:
    """Returns the time until the next attempt: never earlier than `span`, and as late as the receiver asks for."""
    asked = min(answer.retry_after or timedelta(), max(span, _MAX_RETRY_AFTER))
    return max(span, asked) * (1 + JITTER * chance)
