"""The decisions as tables: every error code, verdict and age of a token; and the properties of all of them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.decision import (
    LAST_TRY,
    LONGEST_STEP,
    Answered,
    ErrorClass,
    Failure,
    FetchSeparately,
    GiveUp,
    NoChange,
    PauseCalls,
    PollAgain,
    Reply,
    Retry,
    Step,
    Store,
    deadline,
    decide,
)
from app.domain.detection import Detection, Outcome, Part
from app.domain.media import MediaKind, UnreadableMedia, UnreadableReason
from app.domain.verification import State, Verification
from app.faceid.error_codes import classify
from tests.support.error_codes import CODES
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
TEXT, VIDEO = frozenset({Part.TEXT}), frozenset({Part.VIDEO})
MAYBE_PASSES_LATER = Store(Outcome.FAILED, provisional=True, due_at=SETTLED)

ON_FAILURE = {
    ErrorClass.RETRY: Retry(NOW + SECOND / 2),
    ErrorClass.TIMED_OUT: Retry(NOW + SECOND / 2),
    ErrorClass.SLOW_DOWN: Retry(NOW + SECOND / 2),
    ErrorClass.ASK_FOR_LESS: FetchSeparately(NOW + SECOND / 2),
    ErrorClass.CLOCK: Retry(NOW + SECOND / 2),
    ErrorClass.ACCOUNT: PauseCalls(NOW + SECOND / 2),
    ErrorClass.RULE: PauseCalls(NOW + SECOND / 2, rule_only=True),
    ErrorClass.BUG: Retry(NOW + SECOND / 2),
    ErrorClass.FINAL: GiveUp(State.FAILED),
    ErrorClass.EXPIRED: GiveUp(State.EXPIRED),
}
RETRIED = [one for one in ErrorClass if one not in {ErrorClass.FINAL, ErrorClass.EXPIRED}]
ON_OUTCOME = {
    Outcome.PASSED: Store(Outcome.PASSED),
    Outcome.FAILED: MAYBE_PASSES_LATER,
    Outcome.UNFINISHED: PollAgain(NOW + 2 * SECOND),
}


@pytest.mark.parametrize(
    ("reply", "step"),
    [
        *(pytest.param(Failure(classify(code)), ON_FAILURE[known], id=code) for code, known in CODES),
        *(
            pytest.param(Answered(Detection(err_code=code).outcome), ON_OUTCOME[known], id=f"ErrCode {code}")
            for code, known in RESULT_CODES
        ),
        pytest.param(Failure(classify("Unheard.Of")), Retry(NOW + SECOND / 2), id="unknown code"),
        pytest.param(
            Failure(classify("InvalidParameterValue.Of")), GiveUp(State.FAILED), id="unknown code, known prefix"
        ),
        pytest.param(Answered(None), Store(None), id="text not requested"),
    ],
)
def test_every_reply_to_a_fresh_callback_has_its_step(reply: Reply, step: Step) -> None:
    assert decide(PENDING, reply, NOW, jitter=0) == step


@pytest.mark.parametrize(
    ("verification", "outcome", "now", "step"),
    [
        pytest.param(PENDING, Outcome.PASSED, SETTLED, Store(Outcome.PASSED), id="passed, old"),
        pytest.param(PENDING, Outcome.PASSED, DEADLINE + HOUR, Store(Outcome.PASSED), id="passed, after the deadline"),
        pytest.param(PENDING, Outcome.FAILED, SETTLED - MOMENT, MAYBE_PASSES_LATER, id="failed, still young"),
        pytest.param(PENDING, Outcome.FAILED, SETTLED, Store(Outcome.FAILED), id="failed, old"),
        pytest.param(PENDING, Outcome.FAILED, DEADLINE + HOUR, Store(Outcome.FAILED), id="failed, after the deadline"),
        pytest.param(PENDING, Outcome.UNFINISHED, SETTLED - MOMENT, PollAgain(SETTLED), id="unfinished, still young"),
        pytest.param(PENDING, Outcome.UNFINISHED, SETTLED, Store(Outcome.UNFINISHED), id="unfinished, old"),
        pytest.param(PENDING, None, SETTLED, Store(None), id="text not requested, old"),
        pytest.param(PROVISIONAL, Outcome.FAILED, NOW, MAYBE_PASSES_LATER, id="provisional, failed again, young"),
        pytest.param(PROVISIONAL, Outcome.FAILED, SETTLED, Store(Outcome.FAILED), id="provisional, failed for good"),
        pytest.param(PROVISIONAL, Outcome.PASSED, SETTLED, Store(Outcome.PASSED), id="provisional, then passed"),
        pytest.param(PROVISIONAL, Outcome.UNFINISHED, NOW, PollAgain(NOW + 2 * SECOND), id="provisional, trying again"),
        pytest.param(
            PROVISIONAL, Outcome.UNFINISHED, SETTLED, NoChange(), id="provisional, tried again, never finished"
        ),
        pytest.param(PASSED, Outcome.UNFINISHED, SETTLED, NoChange(), id="passed, unfinished when polled again"),
        pytest.param(
            MEDIA_ONLY, Outcome.UNFINISHED, SETTLED, NoChange(), id="media only, unfinished when polled again"
        ),
        pytest.param(PASSED, Outcome.PASSED, DEADLINE, Store(Outcome.PASSED), id="passed, polled again"),
        pytest.param(REGISTERED, Outcome.UNFINISHED, NOW + 10 * MINUTE, PollAgain(SETTLED), id="registered, polled"),
        pytest.param(
            REGISTERED,
            Outcome.UNFINISHED,
            SETTLED,
            Store(Outcome.UNFINISHED, due_at=SETTLED + HOUR),
            id="registered, polled, old: polling continues, because a callback may be lost",
        ),
        pytest.param(POLLED, Outcome.UNFINISHED, SETTLED, PollAgain(SETTLED + HOUR), id="polled on, still unfinished"),
        pytest.param(POLLED, Outcome.PASSED, SETTLED, Store(Outcome.PASSED), id="polled on, passed at last"),
        pytest.param(POLLED, Outcome.UNFINISHED, DEADLINE - HOUR, NoChange(), id="polled on, no time for another hour"),
        pytest.param(UNFINISHED, Outcome.UNFINISHED, SETTLED, NoChange(), id="called back, unfinished, polled again"),
    ],
)
def test_answer_is_judged_by_token_age_and_stored_result(
    verification: Verification, outcome: Outcome | None, now: datetime, step: Step
) -> None:
    assert decide(verification, Answered(outcome), now, jitter=0) == step


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
def test_token_age_counts_from_the_earliest_known_instant(verification: Verification, settled_at: datetime) -> None:
    assert decide(verification, Answered(Outcome.FAILED), NOW, jitter=0) == replace(
        MAYBE_PASSES_LATER, due_at=settled_at
    )


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.UNFINISHED])
def test_notice_of_the_future_does_not_schedule_beyond_the_longest_step(outcome: Outcome) -> None:
    later = replace(PENDING, received_at=NOW + 72 * HOUR, deadline_at=NOW + 142 * HOUR)

    step = decide(later, Answered(outcome), NOW, jitter=0)

    due_at = getattr(step, "due_at", None)
    assert due_at is not None
    assert due_at <= NOW + LONGEST_STEP


@pytest.mark.parametrize("error_class", ErrorClass)
@pytest.mark.parametrize("stored", [PASSED, PROVISIONAL, MEDIA_ONLY, UNFINISHED])
def test_failure_never_discards_a_stored_result(stored: Verification, error_class: ErrorClass) -> None:
    last_try_at = DEADLINE - LAST_TRY
    early, late = (decide(stored, Failure(error_class), now, jitter=0) for now in (NOW, last_try_at))

    expected = ON_FAILURE[error_class]
    end = Retry(last_try_at + SECOND / 2) if error_class is ErrorClass.CLOCK else NoChange()
    assert (early, late) == (NoChange() if isinstance(expected, GiveUp) else expected, end)


@pytest.mark.parametrize("error_class", [one for one in RETRIED if one is not ErrorClass.CLOCK])
def test_last_try_is_one_minute_before_the_deadline(error_class: ErrorClass) -> None:
    last_try_at = DEADLINE - MINUTE
    tries = (last_try_at - MOMENT, last_try_at, DEADLINE, DEADLINE + HOUR)

    first, *later = [decide(PENDING, Failure(error_class), now, jitter=0.99) for now in tries]

    assert (type(first), getattr(first, "due_at", None)) == (type(ON_FAILURE[error_class]), last_try_at)
    assert later == [GiveUp(State.EXPIRED)] * 3


def test_final_error_is_final_at_any_time() -> None:
    tries = (NOW, DEADLINE - MINUTE, DEADLINE + HOUR)

    steps = [
        decide(PENDING, Failure(error_class), now, jitter=0.99)
        for error_class in (ErrorClass.FINAL, ErrorClass.EXPIRED)
        for now in tries
    ]

    assert steps == [GiveUp(State.FAILED)] * 3 + [GiveUp(State.EXPIRED)] * 3


def test_rejected_clock_does_not_expire_a_verification() -> None:
    step = decide(PENDING, Failure(ErrorClass.CLOCK), DEADLINE + 24 * HOUR, jitter=0)

    assert step == Retry(DEADLINE)


@pytest.mark.parametrize("error_class", RETRIED)
def test_clock_in_doubt_does_not_expire_a_verification(error_class: ErrorClass) -> None:
    step = decide(PENDING, Failure(error_class), DEADLINE + 24 * HOUR, jitter=0, is_clock_trusted=False)

    assert (type(step), getattr(step, "due_at", None)) == (type(ON_FAILURE[error_class]), DEADLINE)


def test_tencents_word_expires_a_verification_whatever_the_clock() -> None:
    step = decide(PENDING, Failure(ErrorClass.EXPIRED), NOW, jitter=0, is_clock_trusted=False)

    assert step == GiveUp(State.EXPIRED)


@pytest.mark.parametrize("error_class", RETRIED)
def test_retry_intervals_grow_from_one_second_to_five_minutes(
    error_class: ErrorClass,
) -> None:
    tried = [replace(PENDING, failures=failures) for failures in (*range(11), 10_000)]

    shortest = [decide(row, Failure(error_class), NOW, jitter=0) for row in tried]
    middling = [decide(row, Failure(error_class), NOW, jitter=0.5) for row in tried]

    seconds = [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert [getattr(step, "due_at", None) for step in shortest] == [NOW + 0.5 * SECOND * length for length in seconds]
    assert [getattr(step, "due_at", None) for step in middling] == [NOW + 0.75 * SECOND * length for length in seconds]


def test_repeated_timeouts_fetch_parts_separately() -> None:
    steps = [decide(replace(PENDING, failures=n), Failure(ErrorClass.TIMED_OUT), NOW, jitter=0) for n in range(4)]

    assert [type(step) for step in steps] == [Retry, Retry, FetchSeparately, FetchSeparately]


@pytest.mark.parametrize(
    ("verification", "reply", "step"),
    [
        pytest.param(
            PENDING,
            Answered(Outcome.PASSED, fetched_parts=TEXT, missing=VIDEO),
            Store(Outcome.PASSED, due_at=NOW, fetched_parts=TEXT),
            id="the verdict is stored before the video is requested",
        ),
        pytest.param(
            PENDING,
            Answered(Outcome.FAILED, fetched_parts=TEXT, missing=VIDEO),
            Store(Outcome.FAILED, provisional=True, due_at=NOW, fetched_parts=TEXT),
            id="a provisional verdict too",
        ),
        pytest.param(
            PENDING,
            Answered(Outcome.UNFINISHED, fetched_parts=TEXT, missing=VIDEO),
            PollAgain(NOW + 2 * SECOND),
            id="no verdict yet",
        ),
        pytest.param(
            replace(PASSED, fetched_parts=TEXT),
            Answered(None, fetched_parts=TEXT | VIDEO),
            Store(None),
            id="the last part ends the retrieval",
        ),
        pytest.param(
            replace(PROVISIONAL, fetched_parts=TEXT),
            Answered(None, fetched_parts=TEXT | VIDEO),
            Store(None, provisional=True, due_at=SETTLED),
            id="a provisional verdict is polled when it is settled",
        ),
        pytest.param(
            replace(PROVISIONAL, received_at=NOW - 3 * HOUR, fetched_parts=TEXT),
            Answered(None, fetched_parts=TEXT | VIDEO),
            Store(None, provisional=True, due_at=NOW),
            id="at once if it is settled already",
        ),
        pytest.param(PROVISIONAL, Answered(None), Store(None), id="a verdict is final without further texts"),
    ],
)
def test_parts_are_fetched_without_delay(verification: Verification, reply: Reply, step: Step) -> None:
    assert decide(verification, reply, NOW, jitter=0) == step


UNREADABLE = (UnreadableMedia(MediaKind.LIVENESS_VIDEO, UnreadableReason.NOT_BASE64),)


@pytest.mark.parametrize(
    ("verification", "reply", "now", "step"),
    [
        pytest.param(
            PENDING,
            Answered(Outcome.PASSED, awaited=VIDEO, unreadable=UNREADABLE),
            NOW,
            Store(Outcome.PASSED, due_at=NOW + 5 * SECOND, awaited=VIDEO, unreadable=UNREADABLE),
            id="the result is stored at once and the video requested again",
        ),
        pytest.param(
            PENDING,
            Answered(Outcome.PASSED, TEXT, frozenset({Part.BEST_FRAME}), VIDEO, UNREADABLE),
            NOW,
            Store(Outcome.PASSED, False, NOW, TEXT, VIDEO, UNREADABLE),
            id="parts that nobody requested yet come first",
        ),
        pytest.param(
            PENDING,
            Answered(Outcome.FAILED, awaited=VIDEO, unreadable=UNREADABLE),
            NOW,
            replace(MAYBE_PASSES_LATER, due_at=NOW + 5 * SECOND, awaited=VIDEO, unreadable=UNREADABLE),
            id="with a provisional verdict, too",
        ),
        pytest.param(
            replace(PROVISIONAL, media_polls=4),
            Answered(Outcome.FAILED, awaited=VIDEO, unreadable=UNREADABLE),
            NOW,
            replace(MAYBE_PASSES_LATER, unreadable=UNREADABLE),
            id="a provisional verdict is requested again in full when it is settled",
        ),
        pytest.param(
            PENDING,
            Answered(Outcome.FAILED, awaited=VIDEO),
            SETTLED,
            Store(Outcome.FAILED, due_at=SETTLED + 5 * SECOND, awaited=VIDEO),
            id="a failed person's video too, once the verdict is final",
        ),
        pytest.param(
            replace(PASSED, media_polls=4),
            Answered(Outcome.PASSED, awaited=VIDEO),
            NOW,
            Store(Outcome.PASSED, due_at=DEADLINE - HOUR, awaited=VIDEO),
            id="once more an hour before the deadline",
        ),
        pytest.param(
            replace(PASSED, media_polls=3),
            Answered(Outcome.PASSED, awaited=VIDEO),
            DEADLINE - 2 * HOUR,
            Store(Outcome.PASSED, due_at=DEADLINE - HOUR, awaited=VIDEO),
            id="never later than that",
        ),
        pytest.param(
            replace(PASSED, media_polls=1),
            Answered(Outcome.PASSED, awaited=VIDEO, unreadable=UNREADABLE),
            DEADLINE - HOUR,
            Store(Outcome.PASSED, unreadable=UNREADABLE),
            id="what is lacking then stays absent",
        ),
    ],
)
def test_lacking_media_are_polled_soon_and_before_the_deadline(
    verification: Verification, reply: Reply, now: datetime, step: Step
) -> None:
    assert decide(verification, reply, now, jitter=0) == step


def test_unfinished_person_is_polled_in_growing_intervals() -> None:
    steps = [
        decide(replace(PENDING, polls=n), Answered(Outcome.UNFINISHED), NOW, jitter=0) for n in (*range(11), 10_000)
    ]

    seconds = [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]
    assert steps == [PollAgain(NOW + SECOND * length) for length in seconds]


@pytest.mark.parametrize(
    ("created_at", "registered_at", "received_at", "hours"),
    [
        pytest.param(NOW, None, None, 72, id="creation known"),
        pytest.param(NOW, NOW + HOUR, NOW + 2 * HOUR, 72, id="creation known, and more"),
        pytest.param(None, NOW, None, 70, id="registered"),
        pytest.param(None, None, NOW, 70, id="called back"),
        pytest.param(None, NOW - HOUR, NOW, 70, id="registered, then called back"),
        pytest.param(None, NOW - 5 * HOUR, NOW, 67, id="registered long before: it existed by then"),
    ],
)
def test_deadline_is_72_hours_from_creation_or_70_from_callback(
    created_at: datetime | None, registered_at: datetime | None, received_at: datetime | None, hours: int
) -> None:
    until = deadline(created_at=created_at, registered_at=registered_at, received_at=received_at)

    assert until == NOW + hours * HOUR


def test_token_without_any_instant_has_no_deadline() -> None:
    with pytest.raises(ValueError, match="registered or called back"):
        deadline(created_at=None, registered_at=None, received_at=None)


REPLIES = st.one_of(st.sampled_from(ErrorClass).map(Failure), st.sampled_from([*Outcome, None]).map(Answered))
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
        polls=draw(st.integers(0, 200)),
    )


@settings(max_examples=200)
@given(verification=verifications(), reply=REPLIES, age=SPANS, jitter=st.floats(0, 1, exclude_max=True))
def test_next_call_is_after_now_and_before_the_deadline(
    verification: Verification, reply: Reply, age: timedelta, jitter: float
) -> None:
    now = NOW + age

    step = decide(verification, reply, now, jitter=jitter)

    due_at = getattr(step, "due_at", None)
    if due_at is None:
        assert step in {*map(Store, [*Outcome, None]), GiveUp(State.FAILED), GiveUp(State.EXPIRED), NoChange()}
    elif reply != Failure(ErrorClass.CLOCK):
        assert now < due_at <= verification.deadline_at - LAST_TRY


@settings(max_examples=200)
@given(verification=verifications(), age=SPANS, jitter=st.floats(0, 1, exclude_max=True))
def test_unfinished_is_no_verdict_while_the_person_has_time(
    verification: Verification, age: timedelta, jitter: float
) -> None:
    step = decide(verification, Answered(Outcome.UNFINISHED), NOW + age, jitter=jitter)

    has_time = NOW + age < verification.born_at + 2 * HOUR + 5 * MINUTE
    assert not has_time or isinstance(step, PollAgain)
    assert has_time or getattr(step, "outcome", None) in {None, Outcome.UNFINISHED}


@settings(max_examples=200)
@given(verification=verifications(), reply=REPLIES, age=SPANS)
def test_only_a_pending_verification_is_given_up_on(verification: Verification, reply: Reply, age: timedelta) -> None:
    step = decide(verification, reply, NOW + age, jitter=0)

    assert verification.state is State.PENDING or not isinstance(step, GiveUp)
