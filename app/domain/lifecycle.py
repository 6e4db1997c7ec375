"""How a verification changes: each function takes the row and answers the row as it is afterwards. Pure."""

from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from app.domain.decision import (
    FIRST_POLL,
    AskForLess,
    GiveUp,
    LookAgain,
    Pause,
    Retry,
    Step,
    Store,
    deadline,
)
from app.domain.detection import Outcome
from app.domain.rule import Rule
from app.domain.verification import Call, Facts, Priority, State, Verification
from app.errors import ConflictError, GoneError


def new(
    *,
    client: str,
    biz_token: str,
    rule_id: str,
    rule: Rule,
    sealed_key: bytes | None = None,
    nonce: str | None = None,
    now: datetime,
) -> Verification:
    """A token that nobody told us of before; `registered` or `called_back` says what is to be done."""
    return Verification(
        client=client,
        biz_token=biz_token,
        rule_id=rule_id,
        account=rule.account,
        sealed_key=sealed_key,
        nonce=nonce,
        due_at=None,
        deadline_at=now,
        retain_until=now + rule.retention,
        retain_media_until=now + rule.media_retention,
        erase_at=now + rule.media_retention,
    )


def registered(verification: Verification, facts: Facts, now: datetime) -> Verification:
    """The token was announced when DetectAuth returned it; from now on it is looked after without a callback.

    Raises:
        ConflictError: a fact contradicts a known one.
    """
    if verification.state is State.ERASED:
        return verification
    is_new = verification.registered_at is None and verification.received_at is None
    poll_at = max(now, (facts.created_at or now) + FIRST_POLL)
    return _with_deadline(
        replace(
            verification,
            rule_id=_agreed("rule_id", verification.rule_id, facts.rule_id) or verification.rule_id,
            subject_ref=_agreed("subject_ref", verification.subject_ref, facts.subject_ref),
            purpose=_agreed("purpose", verification.purpose, facts.purpose),
            created_at=_agreed("created_at", verification.created_at, facts.created_at),
            registered_at=verification.registered_at or now,
            due_at=poll_at if is_new else verification.due_at,
            priority=Priority.POLL if is_new else verification.priority,
        )
    )


def called_back(verification: Verification, rule_id: str | None, extra: bytes | None, now: datetime) -> Verification:
    """Somebody says that the person is done. What is settled stays; all else is due at once.

    Raises:
        ConflictError: `rule_id` contradicts the known one.
    """
    if verification.state is State.ERASED:
        return replace(verification, received_at=verification.received_at or now)
    verification = _with_deadline(
        replace(
            verification,
            rule_id=_agreed("rule_id", verification.rule_id, rule_id) or verification.rule_id,
            received_at=verification.received_at or now,
            callback_extra=verification.callback_extra or extra,
        )
    )
    open_ended = verification.provisional or verification.outcome is Outcome.UNFINISHED
    return woken(verification, now) if open_ended or verification.state is State.PENDING else verification


def woken(verification: Verification, now: datetime) -> Verification:
    """Due at once; while a worker is at it, due again as soon as that one reports back."""
    if verification.leased:
        return replace(verification, woken=True)
    return replace(verification, due_at=min(now, verification.due_at or now), priority=Priority.FRESH)


def asked_again(verification: Verification, now: datetime) -> Verification:
    """Somebody wants another pull. A stored result stays readable until a newer one replaces it.

    Raises:
        GoneError: it was erased.
    """
    if verification.state is State.ERASED:
        raise GoneError("The verification was erased.")
    if verification.state in {State.FAILED, State.EXPIRED}:
        verification = replace(verification, state=State.PENDING, failures=0)
    return woken(verification, now)


def erased(verification: Verification, now: datetime) -> Verification:
    """All that says something of the person or the case is gone; what is named here stays.

    The claim goes up, so that a fetch in flight brings nothing back.
    """
    return Verification(
        id=verification.id,
        client=verification.client,
        biz_token=verification.biz_token,
        rule_id=verification.rule_id,
        account=verification.account,
        state=State.ERASED,
        created_at=verification.created_at,
        registered_at=verification.registered_at,
        received_at=verification.received_at,
        deadline_at=verification.deadline_at,
        due_at=None,
        claim=verification.claim + 1,
        nonce=verification.nonce,
        retain_until=verification.retain_until,
        retain_media_until=verification.retain_media_until,
        erased_at=now,
    )


def without_media(verification: Verification) -> Verification:
    """The media are gone, the text is kept on."""
    return replace(verification, erase_at=verification.retain_until)


def held(verification: Verification, *, is_held: bool) -> Verification:
    """Nothing is erased while it is held; when it is let go, what is overdue is erased at once."""
    if verification.state is State.ERASED:
        return verification
    return replace(verification, legal_hold=is_held, erase_at=None if is_held else verification.retain_media_until)


def after(verification: Verification, step: Step, call: Call, now: datetime) -> Verification:
    """A worker reports back what it decided after `call`."""
    verification = _counted(verification, step, call)
    match step:
        case Store():
            verification = _stored(verification, step, now)
        case LookAgain(due_at):
            verification = replace(verification, due_at=due_at, priority=Priority.POLL)
        case Retry(due_at) | Pause(due_at):
            verification = replace(verification, due_at=due_at, priority=Priority.RETRY)
        case AskForLess(due_at):
            verification = replace(verification, due_at=due_at, priority=Priority.RETRY, one_by_one=True)
        case GiveUp(state):
            verification = replace(verification, state=state, due_at=None)
        case _:  # Keep
            verification = replace(verification, provisional=False, due_at=None, pulled="")
    if verification.woken and verification.due_at:
        verification = replace(verification, due_at=now, priority=Priority.FRESH)
    return replace(verification, leased=False, woken=False)


def _stored(verification: Verification, step: Store, now: datetime) -> Verification:
    return replace(
        verification,
        state=State.RETRIEVED,
        outcome=step.outcome or verification.outcome,
        provisional=step.provisional,
        due_at=step.due_at,
        priority=Priority.RETRY if step.pulled else Priority.POLL,
        pulled="".join(sorted(step.pulled)),
        retrieved_at=now,
        erase_at=None if verification.legal_hold else verification.retain_media_until,
    )


def _counted(verification: Verification, step: Step, call: Call) -> Verification:
    return replace(
        verification,
        attempts=verification.attempts + 1,
        failures=0 if call.error_code is None else verification.failures + 1,
        looks=verification.looks + isinstance(step, LookAgain),
        last_request_id=call.request_id or verification.last_request_id,
        last_error_code=call.error_code,
    )


def _with_deadline(verification: Verification) -> Verification:
    deadline_at = deadline(
        created_at=verification.created_at,
        registered_at=verification.registered_at,
        received_at=verification.received_at,
    )
    return replace(verification, deadline_at=deadline_at)


T = TypeVar("T")


def _agreed(name: str, known: T | None, told: T | None) -> T | None:
    if known is not None and told is not None and known != told:
        raise ConflictError(f"The verification is already known with another {name}.")
    return told if known is None else known
