"""Whole lives of a verification: with the same reply to every call, and with events in random order."""

from dataclasses import replace
from datetime import datetime
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from app.domain import lifecycle
from app.domain.decision import Answered, ErrorClass, Failure, PollAgain, Reply, decide
from app.domain.detection import Outcome
from app.domain.verification import State, Verification
from tests.support.lifecycle import (
    ANSWERED,
    AWAITED,
    BACK,
    CALLED_BACK,
    CLAIMED,
    CUT,
    HOUR,
    MINUTE,
    NEW,
    NOW,
    REGISTERED,
    SECOND,
    Life,
)


def live(row: Verification, reply: Reply) -> tuple[list[datetime], Verification]:
    """Runs the life of a verification that always gets the same reply; returns the times of calls, and the end."""
    calls = []
    call = CUT if isinstance(reply, Failure) else ANSWERED
    while row.due_at is not None:
        now = row.due_at
        calls.append(now)
        row = lifecycle.after(replace(row, is_leased=True), decide(row, reply, now, jitter=0.5), call, now)
    return calls, row


def test_lacking_video_is_polled_five_times() -> None:
    called_at, end = live(CALLED_BACK, Answered(Outcome.PASSED, awaited=AWAITED))

    assert [after - before for before, after in pairwise(called_at)][:4] == [5 * SECOND, 30 * SECOND, 5 * MINUTE, HOUR]
    assert (len(called_at), called_at[-1], end.media_polls) == (6, NOW + 69 * HOUR, 5)
    assert (end.state, end.outcome, end.due_at, end.awaited_parts) == (
        State.RETRIEVED,
        Outcome.PASSED,
        None,
        frozenset(),
    )


@pytest.mark.parametrize("error_class", [ErrorClass.RETRY, ErrorClass.TIMED_OUT, ErrorClass.ACCOUNT, ErrorClass.RULE])
def test_failures_are_retried_until_a_minute_before_the_deadline(error_class: ErrorClass) -> None:
    calls, end = live(CALLED_BACK, Failure(error_class))

    waits = [after - before for before, after in pairwise(calls)]
    assert (end.state, end.outcome, calls[-1]) == (State.EXPIRED, None, NOW + 70 * HOUR - MINUTE)
    assert max(waits) <= 5 * MINUTE
    assert end.attempts == len(calls) < 6000


def test_person_who_never_finishes_is_unfinished_after_2_h_5_min() -> None:
    called_at, end = live(CALLED_BACK, Answered(Outcome.UNFINISHED))

    assert (end.state, end.outcome, end.provisional) == (State.RETRIEVED, Outcome.UNFINISHED, False)
    assert (len(called_at), called_at[-1]) == (21, NOW + 2 * HOUR + 5 * MINUTE)


def test_registered_token_is_polled_on_in_case_a_callback_is_lost() -> None:
    called_at, end = live(REGISTERED, Answered(Outcome.UNFINISHED))

    settled_at = NOW + 2 * HOUR + 5 * MINUTE
    assert called_at == [NOW + 10 * MINUTE, *(settled_at + hours * HOUR for hours in range(68))]
    assert (end.state, end.outcome, end.retrieved_at) == (State.RETRIEVED, Outcome.UNFINISHED, settled_at)


def test_early_failure_is_polled_once_more_when_it_is_settled() -> None:
    called_at, end = live(CALLED_BACK, Answered(Outcome.FAILED))

    assert called_at == [NOW, NOW + 2 * HOUR + 5 * MINUTE]
    assert (end.state, end.outcome, end.provisional) == (State.RETRIEVED, Outcome.FAILED, False)


def test_hundred_callbacks_before_a_call_make_one_call() -> None:
    row = NEW
    for copy in range(100):
        row = lifecycle.called_back(row, None, NOW + copy * SECOND)

    assert row == CALLED_BACK
    assert live(row, Answered(Outcome.PASSED))[0] == [NOW]


def test_hundred_callbacks_during_a_call_make_one_more_call() -> None:
    row = CLAIMED
    for copy in range(100):
        row = lifecycle.called_back(row, None, NOW + copy * SECOND)
    row = lifecycle.after(row, PollAgain(NOW + HOUR), ANSWERED, NOW + 100 * SECOND)

    assert row == replace(BACK, called_at=NOW + 100 * SECOND, polls=1, due_at=NOW + 102 * SECOND)
    assert live(row, Answered(Outcome.PASSED))[0] == [NOW + 102 * SECOND]


def test_no_order_of_events_loses_facts_results_or_pending_rows() -> None:
    run_state_machine_as_test(Life, settings=settings(max_examples=100, stateful_step_count=25))
