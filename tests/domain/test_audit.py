"""The hash chain of the audit trail, as values."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from app.domain.audit import GENESIS, Action, AuditRecord

RECORD = AuditRecord(
    id=1,
    at=datetime(2026, 1, 1, 12, tzinfo=UTC),
    who="back office",
    key_id="0123456789ab",
    client="default",
    action=Action.IDENTITY,
    verification_id=7,
    fields="name id_card",
    purpose="complaint",
    request_id="request-1",
    outcome="done",
)


def test_hash_does_not_depend_on_the_spelling_of_the_time() -> None:
    elsewhere = replace(RECORD, at=RECORD.at.astimezone(timezone(timedelta(hours=8))))

    assert elsewhere.linked_to(GENESIS) == RECORD.linked_to(GENESIS)


@pytest.mark.parametrize(
    "change",
    [
        {"id": 2},
        {"at": RECORD.at + timedelta.resolution},
        {"who": "someone else"},
        {"action": Action.MEDIA},
        {"verification_id": None},
        {"subject": "x"},
        {"fields": "name"},
        {"purpose": None},
        {"outcome": "refused"},
    ],
    ids=repr,
)
def test_every_column_is_part_of_the_hash(change: dict[str, Any]) -> None:
    assert replace(RECORD, **change).linked_to(GENESIS) != RECORD.linked_to(GENESIS)


def test_hash_continues_the_previous_one() -> None:
    assert RECORD.linked_to(RECORD.linked_to(GENESIS)) != RECORD.linked_to(GENESIS)
