"""Tests of the groups of verifications, and of how changes count."""

from dataclasses import replace
from datetime import UTC, date, datetime

from app.domain.counts import Group, day_of, differences, group_of
from app.domain.detection import Outcome
from app.domain.verification import State, Verification

NOW = datetime(2026, 1, 31, 15, 59, 59, tzinfo=UTC)
PENDING = Verification(client="shop", biz_token="token-1", rule_id="1", received_at=NOW, due_at=None, deadline_at=NOW)
PASSED = replace(PENDING, state=State.RETRIEVED, outcome=Outcome.PASSED, err_code=0)
DAY = date(2026, 1, 31)


def group(state: State, outcome: Outcome | None = None, err_code: int | None = None) -> Group:
    return Group(day=DAY, client="shop", rule_id="1", state=state, outcome=outcome, err_code=err_code)


def test_day_begins_at_midnight_in_beijing() -> None:
    assert day_of(NOW) == DAY
    assert day_of(NOW.replace(hour=16)) == date(2026, 2, 1)


def test_group_has_the_day_of_the_first_report_or_registration() -> None:
    later = NOW.replace(hour=20)

    assert group_of(PASSED) == group(State.RETRIEVED, Outcome.PASSED, 0)
    assert group_of(replace(PASSED, registered_at=later)) == group_of(PASSED)
    assert group_of(replace(PASSED, received_at=later, registered_at=NOW)) == group_of(PASSED)
    assert group_of(replace(PENDING, received_at=None)) is None


def test_changes_move_verifications_between_groups() -> None:
    other = replace(PENDING, biz_token="token-2")

    assert differences([(None, PENDING), (None, other)]) == {group(State.PENDING): 2}
    assert differences([(PENDING, PASSED)]) == {
        group(State.PENDING): -1,
        group(State.RETRIEVED, Outcome.PASSED, 0): 1,
    }
    assert differences([(None, PENDING), (PENDING, PASSED)]) == {group(State.RETRIEVED, Outcome.PASSED, 0): 1}
    assert differences([(PASSED, replace(PASSED, attempts=2))]) == {}


def test_erasure_changes_no_count() -> None:
    assert differences([(PASSED, replace(PASSED, state=State.ERASED, outcome=None, err_code=None))]) == {}
