"""What is decided, as tables: every error code, every verdict, every age of a token; and what holds for all of them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.decision import (
    LAST_TRY,
    AskForLess,
    ErrorClass,
    Found,
    GiveUp,
    Keep,
    LookAgain,
    Pause,
    Reply,
    Retry,
    Step,
    Store,
    Trouble,
    deadline,
    decide,
)
from app.domain.detection import Detection, Outcome, Part
from app.domain.verification import State, Verification
from app.faceid.error_codes import classify
from tests.faceid.test_error_codes import CODES
from tests.support.result_codes import RESULT_CODES

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
MOMENT = timedelta.resolution
SETTLED = NOW + 2 * HOUR + 5 * MINUTE
DEADLINE = NOW + 70 * HOUR
PENDING = Verification(
    client="shop", biz_token="token", rule_id="1", received_at=NOW, due_at=NOW, deadline_at=DEADLINE, claim=1
)
REGISTERED = replace(PENDING, received_at=None, registered_at=NOW, due_at=NOW + 10 * MINUTE)
PASSED = replace(PENDING, state=State.RETRIEVED, outcome=Outcome.PASSED, retrieved_at=NOW)
PROVISIONAL = replace(PASSED, outcome=Outcome.FAILED, provisional=True)
MEDIA_ONLY = replace(PASSED, outcome=None)
UNFINISHED = replace(PASSED, outcome=Outcome.UNFINISHED)
POLLED = replace(UNFINISHED, received_at=None, registered_at=NOW)
MAYBE_PASSES_LATER = Store(Outcome.FAILED, provisional=True, due_at=SETTLED)

ON_TROUBLE = {
    ErrorClass.RETRY: Retry(NOW + SECOND / 2),
    ErrorClass.TIMED_OUT: Retry(NOW + SECOND / 2),
    ErrorClass.SLOW_DOWN: Retry(NOW + SECOND / 2),
    ErrorClass.ASK_FOR_LESS: AskForLess(NOW + SECOND / 2),
    ErrorClass.CLOCK: Retry(NOW + SECOND / 2),
    ErrorClass.ACCOUNT: Pause(NOW + SECOND / 2),
    ErrorClass.RULE: Pause(NOW + SECOND / 2, rule_only=True),
    ErrorClass.BUG: Retry(NOW + SECOND / 2),
    ErrorClass.FINAL: GiveUp(State.FAILED),
    ErrorClass.EXPIRED: GiveUp(State.EXPIRED),
}
RETRIED = [one for one in ErrorClass if one not in {ErrorClass.FINAL, ErrorClass.EXPIRED}]
ON_OUTCOME = {
    Outcome.PASSED: Store(Outcome.PASSED),
    Outcome.FAILED: MAYBE_PASSES_LATER,
    Outcome.UNFINISHED: LookAgain(NOW + 2 * SECOND),
}


@pytest.mark.parametrize(
    ("reply", "step"),
    [
        *(pytest.param(Trouble(classify(code)), ON_TROUBLE[known], id=code) for code, known in CODES),
        *(
            pytest.param(Found(Detection(err_code=code).outcome), ON_OUTCOME[known], id=f"ErrCode {code}")
            for code, known in RESULT_CODES
        ),
        pytest.param(Trouble(classify("Unheard.Of")), Retry(NOW + SECOND / 2), id="unknown code"),
        pytest.param(
            Trouble(classify("InvalidParameterValue.Of")), GiveUp(State.FAILED), id="unknown code, known prefix"
        ),
        pytest.param(Found(None), Store(None), id="text not asked for"),
    ],
)
def test_every_answer_to_a_fresh_callback_has_its_step(reply: Reply, step: Step) -> None:
    assert decide(PENDING, reply, NOW, jitter=0) == step


@pytest.mark.parametrize(
    ("verification", "outcome", "now", "step"),
    [
        pytest.param(PENDING, Outcome.PASSED, SETTLED, Store(Outcome.PASSED), id="passed, old"),
        pytest.param(PENDING, Outcome.PASSED, DEADLINE + HOUR, Store(Outcome.PASSED), id="passed, after the deadline"),
        pytest.param(PENDING, Outcome.FAILED, SETTLED - MOMENT, MAYBE_PASSES_LATER, id="failed, still young"),
        pytest.param(PENDING, Outcome.FAILED, SETTLED, Store(Outcome.FAILED), id="failed, old"),
        pytest.param(PENDING, Outcome.FAILED, DEADLINE + HOUR, Store(Outcome.FAILED), id="failed, after the deadline"),
        pytest.param(PENDING, Outcome.UNFINISHED, SETTLED - MOMENT, LookAgain(SETTLED), id="unfinished, still young"),
        pytest.param(PENDING, Outcome.UNFINISHED, SETTLED, Store(Outcome.UNFINISHED), id="unfinished, old"),
        pytest.param(PENDING, None, SETTLED, Store(None), id="text not asked for, old"),
        pytest.param(PROVISIONAL, Outcome.FAILED, NOW, MAYBE_PASSES_LATER, id="provisional, failed again, young"),
        pytest.param(PROVISIONAL, Outcome.FAILED, SETTLED, Store(Outcome.FAILED), id="provisional, failed for good"),
        pytest.param(PROVISIONAL, Outcome.PASSED, SETTLED, Store(Outcome.PASSED), id="provisional, then passed"),
        pytest.param(PROVISIONAL, Outcome.UNFINISHED, NOW, LookAgain(NOW + 2 * SECOND), id="provisional, trying again"),
        pytest.param(PROVISIONAL, Outcome.UNFINISHED, SETTLED, Keep(), id="provisional, tried again, never finished"),
        pytest.param(PASSED, Outcome.UNFINISHED, SETTLED, Keep(), id="passed, nothing there when asked again"),
        pytest.param(MEDIA_ONLY, Outcome.UNFINISHED, SETTLED, Keep(), id="media stored, none when asked again"),
        pytest.param(PASSED, Outcome.PASSED, DEADLINE, Store(Outcome.PASSED), id="passed, asked again"),
        pytest.param(REGISTERED, Outcome.UNFINISHED, NOW + 10 * MINUTE, LookAgain(SETTLED), id="registered, polled"),
        pytest.param(
            REGISTERED,
            Outcome.UNFINISHED,
            SETTLED,
            Store(Outcome.UNFINISHED, due_at=SETTLED + HOUR),
            id="registered, polled, old: unfinished, and polled on in case a callback was lost",
        ),
        pytest.param(POLLED, Outcome.UNFINISHED, SETTLED, LookAgain(SETTLED + HOUR), id="polled on, still unfinished"),
        pytest.param(POLLED, Outcome.PASSED, SETTLED, Store(Outcome.PASSED), id="polled on, passed at last"),
        pytest.param(POLLED, Outcome.UNFINISHED, DEADLINE - HOUR, Keep(), id="polled on, no time for another hour"),
        pytest.param(UNFINISHED, Outcome.UNFINISHED, SETTLED, Keep(), id="called back, unfinished, asked again"),
    ],
)
def test_what_was_found_is_judged_by_the_age_of_the_token_and_by_what_is_stored(
    verification: Verification, outcome: Outcome | None, now: datetime, step: Step
) -> None:
    assert decide(verification, Found(outcome), now, jitter=0) == step


@pytest.mark.parametrize(
    ("verification", "settled_at"),
    [
        pytest.param(PENDING, SETTLED, id="callback only"),
        pytest.param(replace(PENDING, registered_at=NOW - HOUR), SETTLED - HOUR, id="registered before the callback"),
        pytest.param(replace(PENDING, registered_at=NOW + HOUR), SETTLED, id="registered after the callback"),
        pytest.param(
            replace(PENDING, created_at=NOW - HOUR, registered_at=NOW + HOUR), SETTLED - HOUR, id="creation known"
        ),
    ],
)
def test_the_age_of_a_token_counts_from_the_earliest_that_is_known_of_it(
    verification: Verification, settled_at: datetime
) -> None:
    assert decide(verification, Found(Outcome.FAILED), NOW, jitter=0) == replace(MAYBE_PASSES_LATER, due_at=settled_at)


@pytest.mark.parametrize("error_class", ErrorClass)
@pytest.mark.parametrize("stored", [PASSED, PROVISIONAL, MEDIA_ONLY, UNFINISHED])
def test_no_trouble_takes_away_what_was_retrieved(stored: Verification, error_class: ErrorClass) -> None:
    last_try_at = DEADLINE - LAST_TRY
    early, late = (decide(stored, Trouble(error_class), now, jitter=0) for now in (NOW, last_try_at))

    expected = ON_TROUBLE[error_class]
    end = Retry(last_try_at + SECOND / 2) if error_class is ErrorClass.CLOCK else Keep()
    assert (early, late) == (Keep() if isinstance(expected, GiveUp) else expected, end)


@pytest.mark.parametrize("error_class", [one for one in RETRIED if one is not ErrorClass.CLOCK])
def test_the_last_try_is_a_minute_before_the_deadline_and_there_is_none_after_it(error_class: ErrorClass) -> None:
    last_try_at = DEADLINE - MINUTE
    tries = (last_try_at - MOMENT, last_try_at, DEADLINE, DEADLINE + HOUR)

    first, *later = [decide(PENDING, Trouble(error_class), now, jitter=0.99) for now in tries]

    assert (type(first), getattr(first, "due_at", None)) == (type(ON_TROUBLE[error_class]), last_try_at)
    assert later == [GiveUp(State.EXPIRED)] * 3


def test_a_final_no_is_final_at_any_time() -> None:
    tries = (NOW, DEADLINE - MINUTE, DEADLINE + HOUR)

    steps = [
        decide(PENDING, Trouble(error_class), now, jitter=0.99)
        for error_class in (ErrorClass.FINAL, ErrorClass.EXPIRED)
        for now in tries
    ]

    assert steps == [GiveUp(State.FAILED)] * 3 + [GiveUp(State.EXPIRED)] * 3


def test_a_clock_that_is_wrong_does_not_say_when_the_deadline_is() -> None:
    step = decide(PENDING, Trouble(ErrorClass.CLOCK), DEADLINE + 24 * HOUR, jitter=0)

    assert step == Retry(DEADLINE + 24 * HOUR + SECOND / 2)


@pytest.mark.parametrize("error_class", RETRIED)
def test_whatever_is_tried_again_is_tried_after_a_second_and_then_in_intervals_that_grow_to_five_minutes(
    error_class: ErrorClass,
) -> None:
    tried = [replace(PENDING, failures=failures) for failures in (*range(11), 10_000)]

    shortest = [decide(row, Trouble(error_class), NOW, jitter=0) for row in tried]
    middling = [decide(row, Trouble(error_class), NOW, jitter=0.5) for row in tried]

    seconds = [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert [getattr(step, "due_at", None) for step in shortest] == [NOW + 0.5 * SECOND * length for length in seconds]
    assert [getattr(step, "due_at", None) for step in middling] == [NOW + 0.75 * SECOND * length for length in seconds]


def test_less_is_asked_for_when_calls_time_out_again_and_again() -> None:
    steps = [decide(replace(PENDING, failures=n), Trouble(ErrorClass.TIMED_OUT), NOW, jitter=0) for n in range(4)]

    assert [type(step) for step in steps] == [Retry, Retry, AskForLess, AskForLess]


TEXT, VIDEO = frozenset({Part.TEXT}), frozenset({Part.VIDEO})


@pytest.mark.parametrize(
    ("verification", "reply", "step"),
    [
        pytest.param(
            PENDING,
            Found(Outcome.PASSED, pulled=TEXT, missing=VIDEO),
            Store(Outcome.PASSED, due_at=NOW, pulled=TEXT),
            id="the verdict is stored before the video is asked for",
        ),
        pytest.param(
            PENDING,
            Found(Outcome.FAILED, pulled=TEXT, missing=VIDEO),
            Store(Outcome.FAILED, provisional=True, due_at=NOW, pulled=TEXT),
            id="also one that may change",
        ),
        pytest.param(
            PENDING,
            Found(Outcome.UNFINISHED, pulled=TEXT, missing=VIDEO),
            LookAgain(NOW + 2 * SECOND),
            id="not yet one",
        ),
        pytest.param(
            replace(PASSED, pulled="1"), Found(None, pulled=TEXT | VIDEO), Store(None), id="with the last part it ends"
        ),
        pytest.param(
            replace(PROVISIONAL, pulled="1"),
            Found(None, pulled=TEXT | VIDEO),
            Store(None, provisional=True, due_at=SETTLED),
            id="or is looked at again when the verdict cannot change any more",
        ),
        pytest.param(
            replace(PROVISIONAL, received_at=NOW - 3 * HOUR, pulled="1"),
            Found(None, pulled=TEXT | VIDEO),
            Store(None, provisional=True, due_at=NOW),
            id="at once where that is so by now",
        ),
        pytest.param(PROVISIONAL, Found(None), Store(None), id="a verdict that nobody asks for any more is final"),
    ],
)
def test_parts_follow_one_another_at_once(verification: Verification, reply: Reply, step: Step) -> None:
    assert decide(verification, reply, NOW, jitter=0) == step


def test_an_unfinished_person_is_looked_at_in_growing_intervals() -> None:
    steps = [decide(replace(PENDING, looks=n), Found(Outcome.UNFINISHED), NOW, jitter=0) for n in (*range(11), 10_000)]

    seconds = [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]
    assert steps == [LookAgain(NOW + SECOND * length) for length in seconds]


@pytest.mark.parametrize(
    ("created_at", "registered_at", "received_at", "hours"),
    [
        pytest.param(NOW, None, None, 72, id="creation known"),
        pytest.param(NOW, NOW + HOUR, NOW + 2 * HOUR, 72, id="creation known, and more"),
        pytest.param(None, NOW, None, 70, id="registered"),
        pytest.param(None, None, NOW, 70, id="called back"),
        pytest.param(None, NOW - HOUR, NOW, 70, id="registered, then called back"),
        pytest.param(None, NOW - 5 * HOUR, NOW, 67, id="registered long before: it was there by then"),
    ],
)
def test_the_deadline_is_72_hours_from_creation_or_else_70_from_the_first_callback(
    created_at: datetime | None, registered_at: datetime | None, received_at: datetime | None, hours: int
) -> None:
    until = deadline(created_at=created_at, registered_at=registered_at, received_at=received_at)

    assert until == NOW + hours * HOUR


def test_a_token_that_nobody_told_us_of_has_no_deadline() -> None:
    with pytest.raises(ValueError, match="registered or called back"):
        deadline(created_at=None, registered_at=None, received_at=None)


REPLIES = st.one_of(st.sampled_from(ErrorClass).map(Trouble), st.sampled_from([*Outcome, None]).map(Found))
SPANS = st.timedeltas(min_value=timedelta(0), max_value=timedelta(hours=80))


@st.composite
def verifications(draw: st.DrawFn) -> Verification:
    registered_at, received_at = draw(
        st.sampled_from([(None, NOW), (NOW, None), (NOW, NOW), (NOW - HOUR, NOW), (NOW + HOUR, NOW)])
    )
    created_at = None if registered_at is None else draw(st.none() | SPANS.map(lambda span: NOW - HOUR - span))
    return replace(
        draw(st.sampled_from([PENDING, PASSED, PROVISIONAL, MEDIA_ONLY])),
        created_at=created_at,
        registered_at=registered_at,
        received_at=received_at,
        deadline_at=deadline(created_at=created_at, registered_at=registered_at, received_at=received_at),
        failures=draw(st.integers(0, 2000)),
        looks=draw(st.integers(0, 200)),
    )


@settings(max_examples=200, deadline=None)
@given(verification=verifications(), reply=REPLIES, age=SPANS, jitter=st.floats(0, 1, exclude_max=True))
def test_what_is_due_again_is_due_after_now_and_before_the_deadline(
    verification: Verification, reply: Reply, age: timedelta, jitter: float
) -> None:
    now = NOW + age

    step = decide(verification, reply, now, jitter)

    due_at = getattr(step, "due_at", None)
    if due_at is None:
        assert step in {*map(Store, [*Outcome, None]), GiveUp(State.FAILED), GiveUp(State.EXPIRED), Keep()}
    elif reply != Trouble(ErrorClass.CLOCK):
        assert now < due_at <= verification.deadline_at - LAST_TRY


@settings(max_examples=200, deadline=None)
@given(verification=verifications(), age=SPANS, jitter=st.floats(0, 1, exclude_max=True))
def test_no_verdict_is_made_of_an_absent_one_while_the_person_has_time(
    verification: Verification, age: timedelta, jitter: float
) -> None:
    step = decide(verification, Found(Outcome.UNFINISHED), NOW + age, jitter)

    has_time = NOW + age < verification.born_at + 2 * HOUR + 5 * MINUTE
    assert not has_time or isinstance(step, LookAgain)
    assert has_time or getattr(step, "outcome", None) in {None, Outcome.UNFINISHED}


@settings(max_examples=200, deadline=None)
@given(verification=verifications(), reply=REPLIES, age=SPANS)
def test_only_a_pending_verification_is_given_up(verification: Verification, reply: Reply, age: timedelta) -> None:
    step = decide(verification, reply, NOW + age, jitter=0)

    assert verification.state is State.PENDING or not isinstance(step, GiveUp)
