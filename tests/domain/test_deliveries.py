"""Deliveries: what each answer means for the delivery and for its endpoint, and how an endpoint recovers."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.deliveries import (
    JITTER,
    PAUSES,
    SCHEDULE,
    Answer,
    Attempt,
    Delivery,
    DeliveryPriority,
    DeliveryState,
    Fault,
    ReplayKind,
    Signals,
    after,
    attempt_of,
    new_delivery,
    repeated,
    state_event,
    without_event,
)
from app.domain.events import Event, EventType
from app.domain.webhook_endpoint import DisabledReason, EndpointState, WebhookEndpoint

NOW = datetime(2026, 11, 26, 8, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=seconds) for seconds in (1, 60, 3600, 86400))
ENDPOINT = WebhookEndpoint(
    id="we_1", client="shop", url="https://a.test/", sealed_secret=b"", created_at=NOW - 30 * DAY, updated_at=NOW
)
DELIVERY = Delivery(
    id=1, endpoint_id="we_1", event_id=1, position=1, due_at=NOW + 30 * SECOND, claim=1, is_leased=True, created_at=NOW
)
OK = Answer(duration_ms=1, status=200)
TIMEOUT = Answer(duration_ms=1, fault=Fault.TIMEOUT)


def status(code: int, **values: Any) -> Answer:
    return Answer(duration_ms=1, status=code, fault=Fault.HTTP_STATUS, **values)


def attempt(
    answer: Answer,
    endpoint: WebhookEndpoint = ENDPOINT,
    delivery: Delivery = DELIVERY,
    *,
    now: datetime = NOW,
    took: timedelta = SECOND,
    chance: float = 0,
) -> tuple[Delivery, WebhookEndpoint]:
    return after(delivery, endpoint, answer, begun_at=now - took, now=now, chance=chance)


@pytest.mark.parametrize(
    ("answer", "pauses", "state"),
    [
        (status(400), False, EndpointState.ENABLED),
        (status(404), False, EndpointState.ENABLED),
        (status(301), False, EndpointState.ENABLED),
        (status(500), False, EndpointState.ENABLED),
        (status(410), False, EndpointState.DISABLED),
        (status(429), True, EndpointState.ENABLED),
        (status(502), True, EndpointState.ENABLED),
        (status(503), True, EndpointState.ENABLED),
        (status(504), True, EndpointState.ENABLED),
        (TIMEOUT, True, EndpointState.ENABLED),
        *(
            (Answer(duration_ms=1, fault=fault), True, EndpointState.ENABLED)
            for fault in (
                Fault.DNS,
                Fault.REFUSED_ADDRESS,
                Fault.CONNECT,
                Fault.TLS,
                Fault.INVALID_ANSWER,
                Fault.ALTERED,
            )
        ),
    ],
)
def test_first_failure_repeats_the_delivery_and_may_pause_the_endpoint(
    answer: Answer, pauses: bool, state: EndpointState
) -> None:
    delivery, endpoint = attempt(answer)

    assert delivery == replace(DELIVERY, is_leased=False, step=1, attempts=1, due_at=NOW + 5 * SECOND)
    assert endpoint.paused_until == (NOW + 5 * SECOND if pauses else None)
    assert (endpoint.state, endpoint.failures, endpoint.failing_since) == (state, 1, NOW)
    assert endpoint.concurrency == (1 if pauses else 4)


def test_success_ends_the_delivery_and_changes_nothing_about_a_healthy_endpoint() -> None:
    healthy = replace(ENDPOINT, last_success_at=NOW - 59 * SECOND)

    assert attempt(OK, healthy) == (
        replace(DELIVERY, is_leased=False, attempts=1, state=DeliveryState.DELIVERED, due_at=None, ended_at=NOW),
        healthy,
    )
    assert attempt(OK, replace(healthy, last_success_at=NOW - MINUTE))[1].last_success_at == NOW


def test_schedule_of_a_delivery_that_alone_fails_has_ten_attempts_in_three_days() -> None:
    delivery, at, waits = replace(DELIVERY, due_at=NOW), NOW, []
    while delivery.state is DeliveryState.PENDING:
        delivery, _ = attempt(status(500), ENDPOINT, delivery, now=at)
        waits.append((delivery.due_at or at) - at)
        at += waits[-1]

    assert waits == [*SCHEDULE[1:], timedelta()]
    assert (delivery.state, delivery.attempts, delivery.due_at, delivery.ended_at) == (
        DeliveryState.FAILED,
        10,
        None,
        at,
    )
    assert at - NOW == timedelta(hours=75, minutes=35, seconds=5)


def test_endpoint_that_is_down_is_probed_then_disabled_and_loses_nothing() -> None:
    delivery, endpoint, at, states = DELIVERY, ENDPOINT, NOW, [(timedelta(), ENDPOINT.state)]
    while endpoint.state is not EndpointState.DISABLED:
        delivery, endpoint = attempt(TIMEOUT, endpoint, delivery, now=at)
        if endpoint.state is not states[-1][1]:
            states.append((at - NOW, endpoint.state))
        at = delivery.due_at or at

    assert states == [
        (timedelta(), EndpointState.ENABLED),
        (5 * MINUTE + 5 * SECOND, EndpointState.FAILING),
        (5 * DAY + 5 * MINUTE + 5 * SECOND, EndpointState.DISABLED),
    ]
    assert (delivery.state, delivery.step, endpoint.disabled_reason) == (
        DeliveryState.PENDING,
        1,
        DisabledReason.FAILING,
    )
    assert endpoint.pauses == endpoint.failures == delivery.attempts == 3 + 5 * 24 * 6


def test_three_failures_in_a_row_pause_an_endpoint_that_answers() -> None:
    endpoint, pauses = ENDPOINT, []
    for _ in range(4):
        _, endpoint = attempt(status(500), endpoint, now=NOW, took=-SECOND)
        pauses.append((endpoint.state, endpoint.paused_until and endpoint.paused_until - NOW))

    assert pauses == [
        (EndpointState.ENABLED, None),
        (EndpointState.ENABLED, None),
        (EndpointState.FAILING, PAUSES[0]),
        (EndpointState.FAILING, PAUSES[1]),
    ]


def test_rare_failures_make_an_endpoint_failing_after_a_quarter_of_an_hour() -> None:
    _, first = attempt(status(500))
    _, second = attempt(status(500), first, now=NOW + 15 * MINUTE)

    assert (first.state, second.state, second.failures) == (EndpointState.ENABLED, EndpointState.FAILING, 2)


def test_failures_of_one_incident_count_once() -> None:
    first, endpoint = attempt(TIMEOUT)
    second, same = attempt(TIMEOUT, endpoint, now=NOW + SECOND, took=15 * SECOND)

    assert same == endpoint
    assert (first.step, second.step, second.due_at) == (1, 0, endpoint.paused_until)


def test_first_success_ends_the_pause_and_doubles_the_concurrency() -> None:
    broken = replace(
        ENDPOINT,
        state=EndpointState.FAILING,
        failures=9,
        failing_since=NOW - HOUR,
        pauses=5,
        paused_until=NOW,
        concurrency=1,
        last_success_at=NOW - SECOND,
    )
    seen, endpoint = [], broken
    for _ in range(3):
        _, endpoint = attempt(OK, endpoint)
        seen.append(endpoint.concurrency)

    assert seen == [2, 4, 4]
    assert endpoint == replace(ENDPOINT, last_success_at=NOW)


@pytest.mark.parametrize("answer", [OK, status(500), status(410), TIMEOUT])
def test_attempt_in_flight_does_not_enable_a_disabled_endpoint(answer: Answer) -> None:
    stopped = replace(ENDPOINT, state=EndpointState.DISABLED, disabled_reason=DisabledReason.REQUESTED)

    _, endpoint = attempt(answer, stopped)

    assert (endpoint.state, endpoint.disabled_reason) == (EndpointState.DISABLED, DisabledReason.REQUESTED)


@pytest.mark.parametrize(
    ("asked", "wait"),
    [
        (timedelta(), 5 * SECOND),
        (SECOND, 5 * SECOND),
        (120 * SECOND, 120 * SECOND),
        (DAY, HOUR),
    ],
)
def test_retry_after_is_honoured_up_to_an_hour(asked: timedelta, wait: timedelta) -> None:
    delivery, endpoint = attempt(status(503, retry_after=asked))

    assert (delivery.due_at, endpoint.paused_until) == (NOW + wait, NOW + wait)


def test_retry_after_never_shortens_a_longer_step() -> None:
    late = replace(DELIVERY, step=5)

    assert attempt(status(500, retry_after=DAY), delivery=late)[0].due_at == NOW + SCHEDULE[6]


@given(step=st.integers(0, 8), chance=st.floats(0, 1, exclude_max=True))
def test_jitter_never_makes_an_attempt_early(step: int, chance: float) -> None:
    delivery, _ = attempt(status(500), delivery=replace(DELIVERY, step=step), chance=chance)

    assert delivery.due_at
    assert SCHEDULE[step + 1] <= delivery.due_at - NOW <= SCHEDULE[step + 1] * (1 + JITTER)


def test_repetition_begins_a_new_schedule_and_keeps_the_number_of_attempts() -> None:
    failed = replace(DELIVERY, state=DeliveryState.FAILED, step=10, attempts=10, due_at=None, ended_at=NOW)

    assert repeated(failed, NOW + DAY, DeliveryPriority.REPLAY) == replace(
        DELIVERY, is_leased=False, attempts=10, due_at=NOW + DAY, priority=DeliveryPriority.REPLAY
    )


def test_delivery_whose_event_is_gone_has_failed() -> None:
    assert without_event(DELIVERY, NOW) == replace(
        DELIVERY, state=DeliveryState.FAILED, due_at=None, is_leased=False, ended_at=NOW
    )


def test_new_delivery_is_due_at_once_and_has_the_place_of_its_event() -> None:
    event = Event(
        id=7, public_id="evt_7", position=9, type=EventType.RETRIEVED, client="shop", at=NOW, verification_id=3
    )

    assert new_delivery(ENDPOINT, event, NOW, DeliveryPriority.REPLAY) == Delivery(
        endpoint_id="we_1",
        event_id=7,
        verification_id=3,
        position=9,
        priority=DeliveryPriority.REPLAY,
        due_at=NOW,
        created_at=NOW,
    )


def test_record_of_an_attempt_has_the_host_and_the_answer() -> None:
    answer = replace(status(503), head="busy", detail="The answer was 503.", address="8.8.8.8")

    assert attempt_of(DELIVERY, ENDPOINT, answer, NOW) == Attempt(
        delivery_id=1,
        endpoint_id=ENDPOINT.id,
        at=NOW,
        host="a.test",
        address="8.8.8.8",
        duration_ms=1,
        status=503,
        fault=Fault.HTTP_STATUS,
        detail="The answer was 503.",
        head="busy",
    )


FAILING = replace(ENDPOINT, state=EndpointState.FAILING, failing_since=NOW, last_fault="timeout")
GONE = replace(ENDPOINT, state=EndpointState.DISABLED, disabled_reason=DisabledReason.GONE)


@pytest.mark.parametrize(
    ("before", "end", "kind", "details"),
    [
        (ENDPOINT, ENDPOINT, None, {}),
        (FAILING, ENDPOINT, None, {}),
        (FAILING, FAILING, None, {}),
        (
            ENDPOINT,
            FAILING,
            EventType.ENDPOINT_FAILING,
            {
                "state": "failing",
                "disabled_reason": None,
                "failing_since": "2026-11-26T08:00:00.000Z",
                "last_error": "timeout",
            },
        ),
        (
            ENDPOINT,
            GONE,
            EventType.ENDPOINT_DISABLED,
            {"state": "disabled", "disabled_reason": "gone", "failing_since": None, "last_error": None},
        ),
    ],
)
def test_trouble_of_an_endpoint_is_an_event(
    before: WebhookEndpoint, end: WebhookEndpoint, kind: EventType | None, details: dict[str, str | None]
) -> None:
    event = state_event(before, end, NOW)

    assert (event and event.type) == kind
    if event:
        expected = {"id": "we_1", "host": "a.test", "client": "shop", **details}
        assert (event.client, event.at, json.loads(event.details or "")) == ("shop", NOW, expected)


@pytest.mark.parametrize(
    ("kind", "included"),
    [
        (ReplayKind.FAILED, [DeliveryState.FAILED, DeliveryState.DROPPED]),
        (ReplayKind.MISSING, [None]),
        (ReplayKind.ALL, [None, DeliveryState.DELIVERED, DeliveryState.FAILED, DeliveryState.DROPPED]),
    ],
)
def test_replay_never_includes_what_waits(kind: ReplayKind, included: list[DeliveryState | None]) -> None:
    assert [state for state in (None, *DeliveryState) if kind.includes(state)] == included


def test_attempts_that_did_not_fail_are_successes() -> None:
    assert Signals(attempts=100, failures=3, p95_ms=None).successes == 97
