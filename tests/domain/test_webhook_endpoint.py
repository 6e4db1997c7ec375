"""Webhook endpoints: the events that each wants, the rotation of secrets, and what enabling and disabling change."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.detection import Outcome
from app.domain.events import Event, EventType
from app.domain.webhook_endpoint import (
    DisabledReason,
    EndpointState,
    WebhookEndpoint,
    disabled,
    enabled,
    new_id,
    rate_name,
    rotated,
)

NOW = datetime(2026, 11, 26, 8, tzinfo=UTC)
ENDPOINT = WebhookEndpoint(
    id="we_1", client="shop", url="https://a.test/secret", sealed_secret=b"new", created_at=NOW, updated_at=NOW
)
RETRIEVED = Event(
    public_id="evt_1",
    type=EventType.RETRIEVED,
    client="shop",
    at=NOW,
    verification_id=1,
    rule_id="1",
    outcome=Outcome.PASSED,
)
EXPIRED = replace(RETRIEVED, type=EventType.EXPIRED, outcome=None)
ABOUT_OTHER = Event(
    public_id="evt_2", type=EventType.ENDPOINT_FAILING, client="shop", at=NOW, details=json.dumps({"id": "we_2"})
)
ABOUT_ITSELF = replace(ABOUT_OTHER, details=json.dumps({"id": "we_1"}))


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({}, [RETRIEVED, EXPIRED, ABOUT_OTHER]),
        ({"events": {EventType.RETRIEVED}}, [RETRIEVED]),
        ({"events": {EventType.ENDPOINT_FAILING}}, [ABOUT_OTHER]),
        ({"outcomes": {Outcome.PASSED}}, [RETRIEVED, ABOUT_OTHER]),
        ({"outcomes": {Outcome.FAILED}}, [ABOUT_OTHER]),
        ({"rule_ids": {"1", "2"}}, [RETRIEVED, EXPIRED, ABOUT_OTHER]),
        ({"rule_ids": {"2"}}, [ABOUT_OTHER]),
        ({"events": {EventType.EXPIRED}, "outcomes": {Outcome.PASSED}}, []),
    ],
)
def test_endpoint_wants_the_events_that_match_all_its_filters(filters: dict[str, Any], wanted: list[Event]) -> None:
    sets: dict[str, Any] = {name: frozenset(values) for name, values in filters.items()}
    endpoint = replace(ENDPOINT, **sets)

    assert [event for event in (RETRIEVED, EXPIRED, ABOUT_OTHER, ABOUT_ITSELF) if endpoint.wants(event)] == wanted


def test_earlier_secret_signs_until_its_time_ends() -> None:
    kept = rotated(ENDPOINT, b"newer", timedelta(hours=24), NOW)

    assert (kept.sealed_secret, kept.previous_secret) == (b"newer", b"new")
    assert kept.has_previous_secret(NOW + timedelta(hours=23))
    assert not kept.has_previous_secret(NOW + timedelta(hours=24))
    assert not ENDPOINT.has_previous_secret(NOW)


def test_rotation_keeps_at_most_two_secrets() -> None:
    twice = rotated(rotated(ENDPOINT, b"2", timedelta(days=7), NOW), b"3", timedelta(days=7), NOW)
    at_once = rotated(twice, b"4", timedelta(), NOW)

    assert (twice.sealed_secret, twice.previous_secret) == (b"3", b"2")
    assert (at_once.sealed_secret, at_once.previous_secret, at_once.previous_until) == (b"4", None, None)


def test_disabled_endpoint_keeps_its_first_reason_until_it_is_enabled() -> None:
    first = disabled(replace(ENDPOINT, failures=3, state=EndpointState.FAILING), DisabledReason.GONE, NOW)

    assert disabled(first, DisabledReason.REQUESTED, NOW + timedelta(1)) == first
    assert (first.state, first.disabled_reason, first.disabled_at) == (EndpointState.DISABLED, DisabledReason.GONE, NOW)
    assert enabled(first) == replace(ENDPOINT, concurrency=1)


def test_secrets_and_url_are_not_printed_and_ids_differ() -> None:
    assert "secret" not in repr(ENDPOINT).replace("sealed_secret", "")
    assert new_id() != new_id()
    assert rate_name(ENDPOINT) == "webhook:we_1"
    assert (ENDPOINT.host, replace(ENDPOINT, url="").host) == ("a.test", "")
    assert ENDPOINT.bound_values == ("webhook_endpoint", "we_1", "shop", "https://a.test/secret")
