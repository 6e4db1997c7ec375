"""Sessions of the console: when they end, and what their seal is bound to."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.api_key import Scope
from app.domain.session import IDLE, LIFETIME, ConsoleSession, hash_of, new_id

NOW = datetime(2026, 11, 26, 8, tzinfo=UTC)
MOMENT = timedelta.resolution
SESSION = ConsoleSession(
    id_hash=hash_of("id"),
    key_id="0123456789ab",
    caller_id="0123456789ab",
    name="anna",
    client="shop",
    scopes=frozenset({Scope.RESULTS_READ, Scope.MEDIA_READ}),
    created_at=NOW,
    seen_at=NOW,
    expires_at=NOW + LIFETIME,
)


@pytest.mark.parametrize(
    ("seen_after", "asked_after", "is_active"),
    [
        (timedelta(0), timedelta(0), True),
        (timedelta(0), IDLE - MOMENT, True),
        (timedelta(0), IDLE, False),
        (LIFETIME - IDLE / 2, LIFETIME - MOMENT, True),
        (LIFETIME - IDLE / 2, LIFETIME, False),
    ],
)
def test_session_ends_when_idle_or_too_old(seen_after: timedelta, asked_after: timedelta, *, is_active: bool) -> None:
    session = replace(SESSION, seen_at=NOW + seen_after)

    assert session.is_active(NOW + asked_after) is is_active


def test_last_request_is_stored_once_a_minute() -> None:
    minute = timedelta(minutes=1)

    assert [SESSION.must_be_noticed(NOW + after) for after in (minute - MOMENT, minute)] == [False, True]


@pytest.mark.parametrize(
    "change",
    [
        {"key_id": None},
        {"caller_id": "x"},
        {"name": "x"},
        {"client": "x"},
        {"scopes": frozenset({Scope.ADMIN})},
        {"created_at": NOW + MOMENT},
        {"expires_at": NOW},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_right_is_bound_by_the_seal(change: dict[str, Any]) -> None:
    assert replace(SESSION, **change).bound_values != SESSION.bound_values


def test_ids_are_random_and_only_their_hash_is_stored() -> None:
    first, second = new_id(), new_id()

    assert first != second
    assert (len(first), len(hash_of(first))) == (43, 32)
    assert hash_of(first) != hash_of(second)
