"""When a pause is probed."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain import pause

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BEGUN = pause.begin("default", "1", "RuleIdNotExist", NOW)


@pytest.mark.parametrize(
    ("seconds", "is_due"), [(0, False), (4.9, False), (5, True), (3600, True), (-54, False), (-56, True)]
)
def test_probe_is_due_at_its_time_or_if_a_wrong_clock_scheduled_it(seconds: float, *, is_due: bool) -> None:
    assert pause.has_due_probe(BEGUN, NOW + timedelta(seconds=seconds)) is is_due


@pytest.mark.parametrize(("age", "interval"), [(-3600, 5), (0, 5), (5, 5), (20, 20), (60, 60), (86400, 60)])
def test_probes_become_rarer_with_the_age_of_the_pause(age: int, interval: int) -> None:
    now = NOW + timedelta(seconds=age)

    assert pause.next_probe_at(BEGUN, now) - now == timedelta(seconds=interval)


def test_cause_names_account_rule_and_error() -> None:
    assert BEGUN.cause == {"account": "default", "rule_id": "1", "error_code": "RuleIdNotExist"}
