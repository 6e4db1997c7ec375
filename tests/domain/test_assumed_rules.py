"""An assumed rule is replaced by a stated one, and Tencent's bill only registers unknown tokens."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain import lifecycle
from app.domain.decision import CALL_INTERVAL
from app.domain.detection import Outcome, Part
from app.domain.rule import Rule
from app.domain.verification import Priority, State, Verification
from app.errors import ConflictError

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
LATER = NOW + MINUTE

NEW = lifecycle.new(client="shop", biz_token="token", rule_id="1", rule=Rule(), now=NOW)
CALLED_BACK = replace(NEW, received_at=NOW, due_at=NOW, deadline_at=NOW + 70 * HOUR)
REGISTERED = replace(
    NEW, registered_at=NOW, due_at=NOW + 10 * MINUTE, priority=Priority.POLL, deadline_at=NOW + 70 * HOUR
)
CLAIMED = replace(CALLED_BACK, claim=1, is_leased=True)
PASSED = replace(CALLED_BACK, state=State.RETRIEVED, outcome=Outcome.PASSED, retrieved_at=NOW, due_at=None)
EXPIRED = replace(CALLED_BACK, state=State.EXPIRED, failures=9, due_at=None)
FAILED = replace(EXPIRED, state=State.FAILED)

OTHER_RULE = Rule(account="bank", retention=timedelta(days=9), media_retention=timedelta(days=5))
STATED: dict[str, Any] = {
    "rule_id": "9",
    "is_rule_assumed": False,
    "account": "bank",
    "retain_until": NOW + timedelta(days=9),
    "retain_media_until": NOW + timedelta(days=5),
    "erase_at": NOW + timedelta(days=5),
}
DUE_LATER: dict[str, Any] = {"due_at": LATER, "priority": Priority.FRESH, "claim": 1}


@pytest.mark.parametrize(
    ("known", "changes"),
    [
        (REGISTERED, {}),
        (CALLED_BACK, {}),
        (replace(CALLED_BACK, attempts=2, failures=2, due_at=NOW + HOUR), DUE_LATER | {"failures": 0}),
        (
            replace(CLAIMED, wake_requested=True, due_at=NOW + HOUR),
            DUE_LATER
            | {"claim": 2, "is_leased": False, "wake_requested": False}
            | {"called_at": LATER, "due_at": LATER + CALL_INTERVAL},
        ),
        (replace(FAILED, attempts=1), DUE_LATER | {"state": State.PENDING, "failures": 0}),
        (replace(EXPIRED, attempts=1), DUE_LATER | {"state": State.PENDING, "failures": 0}),
        (
            replace(PASSED, attempts=1, fetched_parts=frozenset(Part), fetch_separately=True),
            DUE_LATER | {"fetched_parts": frozenset(), "fetch_separately": False},
        ),
        (replace(FAILED, legal_hold=True, erase_at=None), {"erase_at": None}),
    ],
)
def test_stated_rule_replaces_an_assumed_one(known: Verification, changes: dict[str, Any]) -> None:
    assumed = replace(known, is_rule_assumed=True)

    assert lifecycle.with_rule(assumed, "9", OTHER_RULE, LATER) == replace(known, **STATED | changes)


def test_stated_rule_that_was_assumed_correctly_changes_nothing_else() -> None:
    assert lifecycle.with_rule(replace(FAILED, is_rule_assumed=True), "1", Rule(), LATER) == FAILED


def test_rule_that_contradicts_a_stated_one_is_rejected() -> None:
    with pytest.raises(ConflictError, match="another rule_id"):
        lifecycle.with_rule(CALLED_BACK, "2", Rule(), LATER)


@pytest.mark.parametrize("known", [REGISTERED, CALLED_BACK, PASSED])
def test_bill_registers_unknown_tokens_only(known: Verification) -> None:
    assert lifecycle.billed(known, LATER) == known
    assert lifecycle.billed(NEW, NOW) == replace(REGISTERED, due_at=NOW)
