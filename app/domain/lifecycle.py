"""The transitions of a verification: each function takes a row and returns the row after the change. Pure."""

from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import TypeVar, assert_never

from app.domain.decision import (
    CALL_INTERVAL,
    CALL_INTERVAL_CAP,
    FIRST_POLL,
    REPEAT_INTERVAL,
    FetchSeparately,
    GiveUp,
    NoChange,
    PauseCalls,
    PollAgain,
    Retry,
    Step,
    Store,
    backoff,
    deadline,
)
from app.domain.detection import Outcome
from app.domain.redirect_state import is_released
from app.domain.rule import Rule
from app.domain.verification import Priority, State, TokenFacts, UpstreamCall, Verification
from app.errors import ConflictError, GoneError, InvalidRequestError

T = TypeVar("T")

# The clock of a caller that states a creation may be ahead of ours.
_CLOCK_SKEW = timedelta(minutes=5)

_INTERNAL = {
    *("id", "account", "is_rule_assumed", "sealed_key", "digest", "revision", "nonce", "updated_at"),
    *("priority", "fetched_parts", "fetch_separately", "claim", "is_leased", "wake_requested", "failures", "polls"),
    *("awaited_parts", "media_polls", "called_at", "event_count", "is_expiry_announced"),
}
_VISIBLE = [field.name for field in fields(Verification) if field.name not in _INTERNAL]


def new(
    *,
    client: str,
    biz_token: str,
    rule_id: str,
    is_rule_assumed: bool = False,
    rule: Rule,
    sealed_key: bytes | None = None,
    nonce: str | None = None,
    now: datetime,
) -> Verification:
    """Returns the row of an unknown token. `registered` or `called_back` must follow: they set the times."""
    return Verification(
        client=client,
        biz_token=biz_token,
        rule_id=rule_id,
        is_rule_assumed=is_rule_assumed,
        account=rule.account,
        sealed_key=sealed_key,
        nonce=nonce,
        updated_at=now,
        due_at=None,
        deadline_at=now,
        retain_until=now + rule.retention,
        retain_media_until=now + rule.media_retention,
        erase_at=now + rule.media_retention,
    )


def touched(before: Verification, after: Verification, now: datetime, *, is_event: bool = False) -> Verification:
    """Returns the changed row, with the time of the change if a reader sees it, and with its event counted."""
    is_visible = any(getattr(before, name) != getattr(after, name) for name in _VISIBLE)
    if not is_visible and not is_event:
        return after
    updated_at = max(now, before.updated_at) if is_visible else after.updated_at
    return replace(after, updated_at=updated_at, event_count=before.event_count + is_event)


def with_rule(verification: Verification, rule_id: str, rule: Rule, now: datetime) -> Verification:
    """Accepts a statement about the rule. A stated rule replaces an assumed one.

    The account and the retention follow the rule. A call under the assumed rule proves nothing: it is made again.

    Raises:
        ConflictError: `rule_id` contradicts an earlier statement.
    """
    if verification.state is State.ERASED:
        return verification
    if rule_id == verification.rule_id:
        return replace(verification, is_rule_assumed=False)
    if not verification.is_rule_assumed:
        raise _contradiction("rule_id")
    accepted_at = min(filter(None, (verification.registered_at, verification.received_at)), default=now)
    retain_media_until = accepted_at + rule.media_retention
    was_called = verification.attempts > 0 or verification.is_leased
    verification = replace(
        verification,
        rule_id=rule_id,
        is_rule_assumed=False,
        account=rule.account,
        fetched_parts=frozenset(),
        fetch_separately=False,
        retain_until=accepted_at + rule.retention,
        retain_media_until=retain_media_until,
        erase_at=verification.erase_at and retain_media_until,
    )
    return retrieve_again(_fenced(verification, now), now) if was_called else verification


def vouched(verification: Verification, now: datetime) -> Verification:
    """Accepts the word of a key or a signature that the token is its client's: the result needs no nonce any more.

    A verification that failed for the lack of the nonce starts again, and so does a call in flight.
    """
    if verification.nonce is None or verification.state is State.ERASED:
        return verification
    is_obsolete = is_released(verification) or (verification.is_leased and verification.state is State.PENDING)
    verification = replace(verification, nonce=None)
    return retrieve_again(_fenced(verification, now), now) if is_obsolete else verification


def claimed(verification: Verification, now: datetime) -> Verification:
    """Accepts a further signed state for a token that only states have brought; one of them must be of its run.

    A verification that failed for the lack of the nonce starts again, and so does a call in flight.
    """
    if verification.nonce is None or not (verification.state is State.PENDING or is_released(verification)):
        return verification
    return retrieve_again(_fenced(verification, now), now)


def _fenced(verification: Verification, now: datetime) -> Verification:
    """Makes a call in flight void, because its facts have changed. It counts for the interval between two calls."""
    called_at = now if verification.is_leased else verification.called_at
    return replace(
        verification,
        claim=verification.claim + 1,
        is_leased=False,
        wake_requested=False,
        called_at=called_at,
        failures=0,
    )


def registered(verification: Verification, facts: TokenFacts, now: datetime, *, due_now: bool = False) -> Verification:
    """Registers the token: its result is retrieved even if no callback ever arrives.

    Args:
        verification: the row, new or known.
        facts: what the caller states about the token.
        now: when it was registered.
        due_now: whether a new token is due at once, because its person was done long ago, or at the first poll.

    Raises:
        ConflictError: a fact contradicts a known one.
        InvalidRequestError: the token was created in the future.
    """
    if facts.created_at and facts.created_at > now + _CLOCK_SKEW:
        raise InvalidRequestError("created_at must not be in the future.")
    if verification.state is State.ERASED:
        return verification
    is_new = verification.registered_at is None and verification.received_at is None
    verification = vouched(verification, now)
    verification = _with_deadline(
        replace(
            verification,
            subject_ref=_merged("subject_ref", verification.subject_ref, facts.subject_ref),
            purpose=_merged("purpose", verification.purpose, facts.purpose),
            created_at=_merged("created_at", verification.created_at, facts.created_at),
            registered_at=verification.registered_at or now,
        )
    )
    if not is_new:
        return verification
    first_at = now if due_now else max(now, (facts.created_at or now) + FIRST_POLL)
    return replace(verification, due_at=min(first_at, verification.deadline_at), priority=Priority.POLL)


def billed(verification: Verification, now: datetime) -> Verification:
    """Registers a token that only Tencent's bill reports. It is due at once, because its person was done yesterday."""
    is_known = verification.registered_at or verification.received_at
    return verification if is_known else registered(verification, TokenFacts(), now, due_now=True)


def called_back(
    verification: Verification, extra: bytes | None, now: datetime, *, is_keyless: bool = False
) -> Verification:
    """Accepts a callback: the person is done. A final result stays; everything else is due at once.

    A callback also revives an expired verification. The clock that expired it may have been wrong.
    """
    if verification.state is State.ERASED:
        return replace(verification, received_at=verification.received_at or now)
    verification = _with_deadline(
        replace(
            verification,
            received_at=verification.received_at or now,
            callback_extra=verification.callback_extra or extra,
        )
    )
    if verification.state is State.EXPIRED:
        verification = replace(verification, state=State.PENDING, failures=0)
    may_change = verification.provisional or verification.outcome is Outcome.UNFINISHED
    if not may_change and verification.state is not State.PENDING:
        return verification
    return _wake(verification, now, is_keyless=is_keyless)


def _wake(
    verification: Verification, now: datetime, *, interval: timedelta | None = None, is_keyless: bool = False
) -> Verification:
    """Makes the verification due, an `interval` after its last call at the earliest.

    If a worker holds it, it becomes due when that worker reports back. `is_keyless`: a browser alone reports it. Once
    Tencent was asked, that moves the token ahead of no other one.
    """
    if verification.is_leased:
        return replace(verification, wake_requested=True)
    due_at = _next_call_at(verification, now, interval)
    is_repeated = is_keyless and verification.attempts > 0
    return replace(
        verification,
        due_at=min(due_at, verification.due_at or due_at, verification.deadline_at),
        priority=min(verification.priority, Priority.POLL) if is_repeated else Priority.FRESH,
    )


def _next_call_at(verification: Verification, now: datetime, interval: timedelta | None = None) -> datetime:
    """Returns the earliest time of the next call. A last call in the future had a wrong clock."""
    if verification.called_at is None:
        return now
    interval = interval or backoff(CALL_INTERVAL, CALL_INTERVAL_CAP, max(verification.polls - 1, 0))
    return max(now, min(verification.called_at, now) + interval)


def retrieve_again(verification: Verification, now: datetime) -> Verification:
    """Requests another retrieval. A stored result stays readable until a newer one replaces it.

    Raises:
        GoneError: the verification was erased.
    """
    if verification.state is State.ERASED:
        raise GoneError("The verification was erased.")
    if verification.state in {State.FAILED, State.EXPIRED}:
        verification = replace(verification, state=State.PENDING, failures=0)
    interval = REPEAT_INTERVAL if verification.state is State.RETRIEVED else None
    return _wake(replace(verification, awaited_parts=frozenset(), media_polls=0), now, interval=interval)


def erased(verification: Verification, now: datetime) -> Verification:
    """Removes everything about the person and the case; only the fields named here stay.

    The claim number grows, so a fetch in flight cannot restore anything.
    """
    return Verification(
        id=verification.id,
        client=verification.client,
        biz_token=verification.biz_token,
        rule_id=verification.rule_id,
        is_rule_assumed=verification.is_rule_assumed,
        account=verification.account,
        state=State.ERASED,
        event_count=verification.event_count,
        is_expiry_announced=verification.is_expiry_announced,
        created_at=verification.created_at,
        registered_at=verification.registered_at,
        received_at=verification.received_at,
        updated_at=verification.updated_at,
        deadline_at=verification.deadline_at,
        due_at=None,
        claim=verification.claim + 1,
        nonce=verification.nonce,
        retain_until=verification.retain_until,
        retain_media_until=verification.retain_media_until,
        erased_at=now,
    )


def without_media(verification: Verification) -> Verification:
    """Records that the media were erased; the text is next. Lacking media are not awaited any more."""
    return replace(
        verification,
        erase_at=verification.retain_until,
        due_at=None if verification.awaited_parts else verification.due_at,
        awaited_parts=frozenset(),
        unreadable=(),
    )


def held(verification: Verification, *, is_held: bool) -> Verification:
    """Sets or lifts the legal hold. Nothing is erased under it; after it, overdue data is erased at once."""
    if verification.state is State.ERASED:
        return verification
    return replace(verification, legal_hold=is_held, erase_at=None if is_held else verification.retain_media_until)


def expiry_announced(verification: Verification) -> Verification:
    """Records that an event reports the approaching deadline, which happens once."""
    return replace(verification, is_expiry_announced=True)


def rejected(verification: Verification, error_code: str) -> Verification:
    """Ends the retrieval without another call, because Tencent rejects everything of its kind with this code."""
    return replace(verification, state=State.FAILED, due_at=None, last_error_code=error_code)


def after(verification: Verification, step: Step, call: UpstreamCall, now: datetime) -> Verification:
    """Applies the step that a worker decided after `call`, and releases the claim."""
    verification = replace(
        verification,
        called_at=now,
        attempts=verification.attempts + 1,
        failures=0 if call.error_code is None else verification.failures + 1,
        polls=verification.polls + isinstance(step, PollAgain),
        last_request_id=call.request_id or verification.last_request_id,
        last_error_code=call.error_code,
    )
    match step:
        case Store():
            verification = replace(
                verification,
                state=State.RETRIEVED,
                revision=verification.revision + 1,
                outcome=step.outcome or verification.outcome,
                provisional=step.provisional,
                due_at=step.due_at,
                priority=_priority_after(step),
                fetched_parts=step.fetched_parts,
                awaited_parts=step.awaited,
                media_polls=verification.media_polls + (_priority_after(step) is Priority.LAST),
                unreadable=step.unreadable,
                retrieved_at=now,
                erase_at=None if verification.legal_hold else verification.retain_media_until,
            )
        case PollAgain(due_at):
            verification = replace(verification, due_at=due_at, priority=Priority.POLL)
        case Retry(due_at) | PauseCalls(due_at):
            verification = replace(verification, due_at=due_at, priority=_retry_priority(verification))
        case FetchSeparately(due_at):
            priority = _retry_priority(verification)
            verification = replace(verification, due_at=due_at, priority=priority, fetch_separately=True)
        case GiveUp(state):
            verification = replace(verification, state=state, due_at=None)
        case NoChange():
            verification = replace(
                verification,
                provisional=False,
                due_at=None,
                fetched_parts=frozenset(),
                awaited_parts=frozenset(),
            )
        case _:
            assert_never(step)
    return replace(_woken(verification, now), is_leased=False, wake_requested=False)


def _woken(verification: Verification, now: datetime) -> Verification:
    """Applies a report that arrived during the call. No call is scheduled after the deadline."""
    if verification.due_at is None:
        return verification
    due_at, priority = verification.due_at, verification.priority
    if verification.wake_requested:
        due_at = min(due_at, _next_call_at(verification, now))
        priority = Priority.FRESH if verification.attempts == 1 else min(priority, Priority.POLL)
    return replace(verification, due_at=min(due_at, verification.deadline_at), priority=priority)


def _priority_after(step: Store) -> Priority:
    if step.fetched_parts:
        return Priority.RETRY
    return Priority.LAST if step.awaited else Priority.POLL


def _retry_priority(verification: Verification) -> Priority:
    return Priority.LAST if verification.priority is Priority.LAST else Priority.RETRY


def _with_deadline(verification: Verification) -> Verification:
    deadline_at = deadline(
        created_at=verification.created_at,
        registered_at=verification.registered_at,
        received_at=verification.received_at,
    )
    return replace(verification, deadline_at=deadline_at)


def _merged(name: str, known: T | None, stated: T | None) -> T | None:
    if known is not None and stated is not None and known != stated:
        raise _contradiction(name)
    return stated if known is None else known


def _contradiction(name: str) -> ConflictError:
    return ConflictError(f"The verification is already known with another {name}.")
