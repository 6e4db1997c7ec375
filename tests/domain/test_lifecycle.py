"""The transitions of a verification, one by one."""

from dataclasses import replace
from datetime import datetime

import pytest

from app.domain import lifecycle
from app.domain.decision import (
    CALL_INTERVAL,
    FetchSeparately,
    GiveUp,
    NoChange,
    PauseCalls,
    PollAgain,
    Retry,
    Step,
    Store,
)
from app.domain.detection import Outcome, Part
from app.domain.media import MediaKind, UnreadableMedia, UnreadableReason
from app.domain.rule import Rule
from app.domain.verification import Priority, State, TokenFacts, Verification
from app.errors import ConflictError, GoneError, InvalidRequestError
from tests.support.lifecycle import (
    ANSWERED,
    AWAITED,
    BACK,
    CALLED_BACK,
    CLAIMED,
    CUT,
    ERASED,
    EXPIRED,
    FAILED,
    HOUR,
    LATER,
    LEASE,
    MINUTE,
    NEW,
    NOW,
    PASSED,
    PROVISIONAL,
    REFUSED,
    REGISTERED,
    SECOND,
    UNFINISHED,
)


def test_registered_token_is_polled_ten_minutes_later() -> None:
    assert lifecycle.registered(NEW, TokenFacts(), NOW) == REGISTERED


def test_known_creation_sets_first_poll_and_deadline() -> None:
    created_at = NOW - 4 * MINUTE
    facts = TokenFacts(rule_id="1", subject_ref="loan-4711", purpose="credit", created_at=created_at)

    assert lifecycle.registered(NEW, facts, NOW) == replace(
        REGISTERED,
        subject_ref="loan-4711",
        purpose="credit",
        created_at=created_at,
        due_at=NOW + 6 * MINUTE,
        deadline_at=created_at + 72 * HOUR,
    )


def test_old_token_is_due_at_its_registration() -> None:
    registered = lifecycle.registered(NEW, TokenFacts(created_at=NOW - HOUR), NOW)

    assert registered.due_at == NOW


@pytest.mark.parametrize("known", [CALLED_BACK, REGISTERED, CLAIMED, PASSED, PROVISIONAL, EXPIRED])
def test_registering_a_known_token_only_adds_facts(known: Verification) -> None:
    facts = TokenFacts(subject_ref="loan-4711", created_at=NOW - HOUR)

    assert lifecycle.registered(known, facts, LATER) == replace(
        known,
        subject_ref="loan-4711",
        created_at=NOW - HOUR,
        registered_at=known.registered_at or LATER,
        deadline_at=NOW + 71 * HOUR,
    )


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        (TokenFacts(subject_ref="loan-4712"), "subject_ref"),
        (TokenFacts(purpose="rent"), "purpose"),
        (TokenFacts(created_at=NOW), "created_at"),
    ],
)
def test_fact_that_contradicts_a_known_one_is_rejected(facts: TokenFacts, name: str) -> None:
    known = replace(REGISTERED, subject_ref="loan-4711", purpose="credit", created_at=NOW - HOUR)

    with pytest.raises(ConflictError) as rejected:
        lifecycle.registered(known, facts, LATER)

    assert rejected.value.detail == f"The verification is already known with another {name}."


@pytest.mark.parametrize(
    ("known", "called_back"),
    [
        pytest.param(NEW, replace(CALLED_BACK, callback_extra=b"first"), id="a new one is due at once"),
        pytest.param(
            REGISTERED,
            replace(CALLED_BACK, registered_at=NOW, callback_extra=b"first"),
            id="a registered one is due at once",
        ),
        pytest.param(
            replace(CALLED_BACK, due_at=NOW - MINUTE, callback_extra=b"older"),
            replace(CALLED_BACK, due_at=NOW - MINUTE, callback_extra=b"older"),
            id="one that is due keeps its place",
        ),
        pytest.param(
            replace(CALLED_BACK, due_at=NOW + HOUR, failures=9),
            replace(CALLED_BACK, failures=9, callback_extra=b"first"),
            id="one that is to be retried is due at once",
        ),
        pytest.param(
            CLAIMED,
            replace(CLAIMED, wake_requested=True, callback_extra=b"first"),
            id="a claimed one is due once more afterwards",
        ),
        pytest.param(
            PROVISIONAL,
            replace(PROVISIONAL, due_at=NOW, callback_extra=b"first"),
            id="a provisional one is due at once",
        ),
        pytest.param(
            UNFINISHED,
            replace(UNFINISHED, due_at=NOW, callback_extra=b"first"),
            id="an unfinished one is due at once and stays readable",
        ),
        pytest.param(PASSED, replace(PASSED, callback_extra=b"first"), id="a passed one is settled"),
        pytest.param(FAILED, replace(FAILED, callback_extra=b"first"), id="a failed one is settled"),
        pytest.param(
            EXPIRED,
            replace(
                CALLED_BACK, callback_extra=b"first", due_at=min(NOW, EXPIRED.deadline_at), priority=Priority.FRESH
            ),
            id="an expired one is pending again",
        ),
        pytest.param(ERASED, ERASED, id="an erased one stays erased"),
    ],
)
def test_callback_makes_the_row_due_if_it_is_not_settled(known: Verification, called_back: Verification) -> None:
    assert lifecycle.called_back(known, b"first", NOW) == called_back


@pytest.mark.parametrize(
    ("known", "retrieved_again"),
    [
        pytest.param(CALLED_BACK, CALLED_BACK, id="what is due stays due"),
        pytest.param(
            REGISTERED,
            replace(REGISTERED, due_at=NOW, priority=Priority.FRESH),
            id="what waits is due at once",
        ),
        pytest.param(CLAIMED, replace(CLAIMED, wake_requested=True), id="a claimed one is due once more afterwards"),
        pytest.param(PASSED, replace(PASSED, due_at=NOW), id="a stored result stays readable"),
        pytest.param(FAILED, CALLED_BACK, id="a failed one is pending again, with short intervals"),
        pytest.param(EXPIRED, CALLED_BACK, id="an expired one is pending again, with short intervals"),
    ],
)
def test_retrieve_again_makes_any_row_due(known: Verification, retrieved_again: Verification) -> None:
    assert lifecycle.retrieve_again(known, NOW) == retrieved_again


def test_erased_verification_cannot_be_retrieved_again() -> None:
    with pytest.raises(GoneError):
        lifecycle.retrieve_again(ERASED, NOW)


def test_erasure_leaves_only_the_fact() -> None:
    full = replace(
        PASSED,
        subject_ref="loan-4711",
        purpose="loan",
        callback_extra=b"sealed",
        sealed_key=b"sealed",
        registered_at=NOW,
        last_request_id="r",
        last_error_code="c",
    )

    assert lifecycle.erased(full, LATER) == replace(
        NEW,
        state=State.ERASED,
        registered_at=NOW,
        received_at=full.received_at,
        deadline_at=full.deadline_at,
        claim=full.claim + 1,
        erase_at=None,
        erased_at=LATER,
    )


@pytest.mark.parametrize("facts", [TokenFacts(), TokenFacts(subject_ref="again", purpose="again")], ids=repr)
def test_erased_verification_stays_erased(facts: TokenFacts) -> None:
    erased = lifecycle.erased(CLAIMED, NOW)

    assert lifecycle.registered(erased, facts, LATER) == erased
    assert lifecycle.called_back(erased, b"again", LATER) == erased
    assert lifecycle.with_rule(replace(erased, is_rule_assumed=True), "2", Rule(), LATER).rule_id == "1"
    assert lifecycle.held(erased, is_held=True) == erased


def test_legal_hold_suspends_the_erasure() -> None:
    held = lifecycle.held(CALLED_BACK, is_held=True)

    assert (held.legal_hold, held.erase_at) == (True, None)
    assert (
        lifecycle.after(replace(held, is_leased=True), Store(Outcome.PASSED, False, None), ANSWERED, LATER).erase_at
        is None
    )
    assert lifecycle.held(held, is_held=False) == CALLED_BACK


def test_text_is_kept_after_the_media_are_erased() -> None:
    assert lifecycle.without_media(PASSED).erase_at == PASSED.retain_until


STORED = replace(BACK, state=State.RETRIEVED, revision=1)


@pytest.mark.parametrize(
    ("step", "after"),
    [
        (
            Store(Outcome.PASSED),
            replace(
                BACK,
                state=State.RETRIEVED,
                revision=1,
                outcome=Outcome.PASSED,
                due_at=None,
                priority=Priority.POLL,
                retrieved_at=LATER,
            ),
        ),
        (
            Store(Outcome.FAILED, provisional=True, due_at=NOW + HOUR),
            replace(
                BACK,
                state=State.RETRIEVED,
                revision=1,
                outcome=Outcome.FAILED,
                provisional=True,
                due_at=NOW + HOUR,
                priority=Priority.POLL,
                retrieved_at=LATER,
            ),
        ),
        (
            Store(Outcome.PASSED, due_at=LATER, fetched_parts=frozenset({Part.ID_CARD, Part.TEXT})),
            replace(
                BACK,
                state=State.RETRIEVED,
                revision=1,
                outcome=Outcome.PASSED,
                due_at=LATER,
                priority=Priority.RETRY,
                fetched_parts=frozenset({Part.ID_CARD, Part.TEXT}),
                retrieved_at=LATER,
            ),
        ),
        (Store(None), replace(STORED, due_at=None, priority=Priority.POLL, retrieved_at=LATER)),
        (PollAgain(NOW + HOUR), replace(BACK, polls=1, due_at=NOW + HOUR, priority=Priority.POLL)),
        (Retry(NOW + HOUR), replace(BACK, due_at=NOW + HOUR, priority=Priority.RETRY)),
        (PauseCalls(NOW + HOUR), replace(BACK, due_at=NOW + HOUR, priority=Priority.RETRY)),
        (FetchSeparately(NOW + HOUR), replace(BACK, due_at=NOW + HOUR, priority=Priority.RETRY, fetch_separately=True)),
        (GiveUp(State.FAILED), replace(BACK, state=State.FAILED, due_at=None)),
        (GiveUp(State.EXPIRED), replace(BACK, state=State.EXPIRED, due_at=None)),
    ],
)
def test_every_step_changes_the_row(step: Step, after: Verification) -> None:
    assert lifecycle.after(CLAIMED, step, ANSWERED, LATER) == after


UNREADABLE = (UnreadableMedia(MediaKind.LIVENESS_VIDEO, UnreadableReason.ADDRESS),)
AWAITING = replace(
    PASSED, due_at=NOW + HOUR, priority=Priority.LAST, awaited_parts=AWAITED, media_polls=1, unreadable=UNREADABLE
)


def test_token_of_the_future_is_rejected() -> None:
    for known in (NEW, PASSED):
        lifecycle.registered(known, TokenFacts(created_at=NOW + 5 * MINUTE), NOW)
        with pytest.raises(InvalidRequestError):
            lifecycle.registered(known, TokenFacts(created_at=NOW + 6 * MINUTE), NOW)


def test_call_that_a_further_state_makes_void_counts_for_the_interval() -> None:
    known = replace(CALLED_BACK, nonce="nonce", is_leased=True, claim=1, due_at=NOW + HOUR)

    after = lifecycle.claimed(known, NOW)

    assert after == replace(known, is_leased=False, claim=2, called_at=NOW, due_at=NOW + CALL_INTERVAL)


@pytest.mark.parametrize("known", [CALLED_BACK, replace(PASSED, nonce="nonce"), replace(FAILED, nonce="nonce")])
def test_further_state_changes_only_a_token_that_waits_for_one(known: Verification) -> None:
    assert lifecycle.claimed(known, NOW) is known


def test_only_a_visible_change_is_an_update() -> None:
    claimed, passed = replace(CALLED_BACK, claim=2), replace(CALLED_BACK, state=State.RETRIEVED)

    assert lifecycle.touched(CALLED_BACK, claimed, NOW) == claimed
    assert lifecycle.touched(CALLED_BACK, passed, NOW) == replace(passed, updated_at=NOW)
    # Never back.
    later = replace(CALLED_BACK, updated_at=NOW + HOUR)
    assert lifecycle.touched(later, passed, NOW) == replace(passed, updated_at=NOW + HOUR)
    # An event is counted whether or not it is an update.
    assert lifecycle.touched(CALLED_BACK, claimed, NOW, is_event=True) == replace(claimed, event_count=1)
    assert lifecycle.touched(later, passed, NOW, is_event=True) == replace(passed, updated_at=NOW + HOUR, event_count=1)


def test_lacking_media_are_polled_at_the_lowest_priority() -> None:
    step = Store(Outcome.PASSED, due_at=NOW + HOUR, awaited=AWAITED, unreadable=UNREADABLE)

    assert lifecycle.after(CLAIMED, step, ANSWERED, LATER) == replace(
        AWAITING,
        claim=1,
        called_at=LATER,
        attempts=1,
        last_request_id="request-1",
        retrieved_at=LATER,
        revision=1,
    )


@pytest.mark.parametrize("step", [Retry(LATER), PauseCalls(LATER), FetchSeparately(LATER)])
def test_failed_media_poll_keeps_the_lowest_priority(step: Step) -> None:
    after = lifecycle.after(AWAITING, step, CUT, NOW)

    assert (after.priority, after.due_at, after.awaited_parts) == (Priority.LAST, LATER, AWAITED)


@pytest.mark.parametrize("step", [Store(Outcome.PASSED), NoChange()])
def test_media_polls_end_with_the_media_or_with_the_token(step: Step) -> None:
    after = lifecycle.after(AWAITING, step, ANSWERED, LATER)

    assert (after.due_at, after.awaited_parts, after.state) == (None, frozenset(), State.RETRIEVED)


def test_requested_retrieval_asks_for_everything_again() -> None:
    after = lifecycle.retrieve_again(AWAITING, NOW)

    assert (after.due_at, after.priority, after.awaited_parts, after.media_polls) == (
        NOW,
        Priority.FRESH,
        frozenset(),
        0,
    )


def test_media_are_not_awaited_after_their_erasure() -> None:
    after = lifecycle.without_media(AWAITING)

    assert (after.due_at, after.awaited_parts, after.unreadable) == (None, frozenset(), ())
    assert lifecycle.without_media(PROVISIONAL).due_at == PROVISIONAL.due_at


def test_unchanged_provisional_result_becomes_final() -> None:
    claimed = replace(PROVISIONAL, is_leased=True, due_at=NOW + LEASE)

    assert lifecycle.after(claimed, NoChange(), ANSWERED, LATER) == replace(
        PROVISIONAL, provisional=False, due_at=None, called_at=LATER, attempts=1, last_request_id="request-1"
    )


@pytest.mark.parametrize(
    ("step", "due_at"),
    [
        (PollAgain(NOW + HOUR), LATER + 2 * SECOND),
        (Retry(NOW + HOUR), LATER + 2 * SECOND),
        (Retry(LATER + SECOND), LATER + SECOND),
        (Store(Outcome.FAILED, provisional=True, due_at=NOW + HOUR), LATER + 2 * SECOND),
        (Store(Outcome.PASSED), None),
        (GiveUp(State.FAILED), None),
    ],
)
def test_callback_during_a_call_makes_unsettled_rows_due_once(step: Step, due_at: datetime | None) -> None:
    woken = replace(CLAIMED, wake_requested=True)
    again = replace(woken, attempts=3)

    undisturbed = lifecycle.after(CLAIMED, step, ANSWERED, LATER)
    priority = Priority.FRESH if due_at else undisturbed.priority
    assert lifecycle.after(woken, step, ANSWERED, LATER) == replace(undisturbed, due_at=due_at, priority=priority)
    # Only the first call is more urgent than those of others.
    assert lifecycle.after(again, step, ANSWERED, LATER).priority == (undisturbed.priority if due_at else priority)


def test_calls_are_counted_and_the_last_request_id_is_kept() -> None:
    row, seen = CLAIMED, []
    for call in (REFUSED, CUT, ANSWERED, CUT):
        row = lifecycle.after(row, Retry(NOW + HOUR), call, LATER)
        seen.append((row.attempts, row.failures, row.last_request_id, row.last_error_code))

    assert seen == [
        (1, 1, "request-2", "InternalError"),
        (2, 2, "request-2", "network.timeout"),
        (3, 0, "request-1", None),
        (4, 1, "request-1", "network.timeout"),
    ]


CALLED = replace(BACK, called_at=NOW, due_at=NOW + HOUR, priority=Priority.POLL, polls=1)


@pytest.mark.parametrize(
    ("known", "due_at"),
    [
        pytest.param(CALLED, NOW + 2 * SECOND, id="one poll"),
        pytest.param(replace(CALLED, polls=3), NOW + 8 * SECOND, id="three polls"),
        pytest.param(replace(CALLED, polls=30), NOW + 30 * SECOND, id="many polls"),
        pytest.param(replace(CALLED, polls=30, due_at=NOW + SECOND), NOW + SECOND, id="due earlier"),
        pytest.param(replace(CALLED, called_at=NOW - 9 * SECOND, polls=3), NOW, id="called before the interval"),
        pytest.param(replace(CALLED, called_at=NOW + HOUR, polls=3), NOW + 8 * SECOND, id="called by a wrong clock"),
    ],
)
def test_report_of_a_polled_token_waits_for_its_interval(known: Verification, due_at: datetime) -> None:
    by_key = lifecycle.called_back(known, None, NOW)
    by_browser = lifecycle.called_back(known, None, NOW, is_keyless=True)
    by_request = lifecycle.retrieve_again(known, NOW)

    assert [row.due_at for row in (by_key, by_browser, by_request)] == [due_at] * 3
    assert [row.priority for row in (by_key, by_browser, by_request)] == [Priority.FRESH, Priority.POLL, Priority.FRESH]


def test_first_report_of_a_browser_is_fresh() -> None:
    row = lifecycle.called_back(REGISTERED, None, NOW, is_keyless=True)

    assert (row.due_at, row.priority) == (NOW, Priority.FRESH)


def test_stored_result_is_requested_again_after_ten_seconds() -> None:
    known = replace(PASSED, called_at=NOW, attempts=1)

    for seconds, due_at in ((0, 10), (9, 10), (10, 10), (11, 11)):
        row = lifecycle.retrieve_again(known, NOW + seconds * SECOND)
        assert (row.due_at, row.priority) == (NOW + due_at * SECOND, Priority.FRESH)


def test_rejected_verification_has_failed_and_can_be_retrieved_again() -> None:
    row = lifecycle.rejected(CALLED, "InvalidParameterValue.RuleIdNotExist")

    assert row == replace(
        CALLED, state=State.FAILED, due_at=None, last_error_code="InvalidParameterValue.RuleIdNotExist"
    )
    assert lifecycle.retrieve_again(row, NOW + MINUTE).state is State.PENDING
