"""What to do with what Tencent answered: (the row, the reply, the time) -> one `Step`. Pure, fit for a table.

The times are Tencent's: a person may use a token for 7,200 s, and its result can be pulled for 72 h from its creation.
A service that only saw the callback does not know the creation; 70 h from then is what it may count on.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.domain.detection import Outcome, Part
from app.domain.verification import State, Verification

KEPT_FROM_CREATION = timedelta(hours=72)
KEPT_FROM_CALLBACK = timedelta(hours=70)
TOKEN_LIFETIME = timedelta(hours=2, minutes=5)  # 7,200 s in which a person may verify, and some for Tencent's own work
FIRST_POLL = timedelta(minutes=10)  # most people are done by then; a registered token needs no callback
POLL_INTERVAL = timedelta(hours=1)  # of a registered token that nobody finished in time and nobody called back
LAST_TRY = timedelta(minutes=1)  # before the deadline: room for one call with its own deadline

RETRY_BASE = timedelta(seconds=1)
RETRY_CAP = timedelta(minutes=5)
PATIENCE = 2  # timeouts in a row; after them less is asked for
LOOK_BASE = timedelta(seconds=2)
LOOK_CAP = timedelta(minutes=10)


class ErrorClass(StrEnum):
    """What kind of trouble an error is; who has to act tells them apart."""

    RETRY = "retry"
    TIMED_OUT = "timed_out"
    SLOW_DOWN = "slow_down"
    ASK_FOR_LESS = "ask_for_less"
    CLOCK = "clock"
    ACCOUNT = "account"
    RULE = "rule"
    EXPIRED = "expired"
    FINAL = "final"
    BUG = "bug"


@dataclass(frozen=True, slots=True)
class Found:
    """Tencent answered. `outcome` is None where the text part was not asked for.

    `pulled` are the parts that are there now, `missing` those that the rule wants and nobody has asked for yet. A part
    that was asked for and did not come was never stored at Tencent: it counts as pulled.
    """

    outcome: Outcome | None
    pulled: frozenset[Part] = frozenset()
    missing: frozenset[Part] = frozenset()


@dataclass(frozen=True, slots=True)
class Trouble:
    """There was no answer, or it was an error of this class."""

    error_class: ErrorClass


Reply = Found | Trouble


@dataclass(frozen=True, slots=True)
class Store:
    """Keep what came; an `outcome` of None leaves the known one as it is.

    Provisional: the person may still try again, so look once more. `pulled` is not empty while parts are to follow.
    """

    outcome: Outcome | None
    provisional: bool = False
    due_at: datetime | None = None
    pulled: frozenset[Part] = frozenset()


@dataclass(frozen=True, slots=True)
class LookAgain:
    """The person is not finished."""

    due_at: datetime


@dataclass(frozen=True, slots=True)
class Retry:
    """Nothing was learned; the token is fine."""

    due_at: datetime


@dataclass(frozen=True, slots=True)
class AskForLess:
    """All at once were too much: the parts are pulled one by one from now on."""

    due_at: datetime


@dataclass(frozen=True, slots=True)
class Pause:
    """The token is fine, and so are the others: an operator must act, for the account or for this rule of it."""

    due_at: datetime
    rule_only: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """There will be no result: `state` is `failed` or `expired`."""

    state: State


@dataclass(frozen=True, slots=True)
class Keep:
    """There will be no newer result than the stored one."""


Step = Store | LookAgain | Retry | AskForLess | Pause | GiveUp | Keep


def deadline(*, created_at: datetime | None, registered_at: datetime | None, received_at: datetime | None) -> datetime:
    """Until when the result can be pulled. At least one of the three instants is known."""
    if created_at:
        return created_at + KEPT_FROM_CREATION
    first = received_at or registered_at
    if first is None:
        raise ValueError("a verification is registered or called back, or both")
    told = first + KEPT_FROM_CALLBACK
    return min(told, registered_at + KEPT_FROM_CREATION) if registered_at else told


def decide(verification: Verification, reply: Reply, now: datetime, jitter: float) -> Step:
    """The one place where a retrieval's fate is decided.

    Args:
        verification: the row as it was claimed, before this call is counted.
        reply: what came of the call.
        now: when it came.
        jitter: a random number in [0, 1); spreads retries over the upper half of their interval.
    """
    if isinstance(reply, Trouble):
        return _trouble(verification, reply.error_class, now, jitter)
    if reply.outcome is Outcome.UNFINISHED:
        return _unfinished(verification, now)
    if reply.outcome:
        provisional = reply.outcome is Outcome.FAILED and now < _settled_at(verification)
    else:  # the text that came before this part says it
        provisional = verification.provisional and Part.TEXT in verification.pulled_parts
    if reply.missing:
        return Store(reply.outcome, provisional, now, reply.pulled)
    return Store(reply.outcome, provisional, max(now, _settled_at(verification)) if provisional else None)


def _settled_at(verification: Verification) -> datetime:
    """From when on the person cannot change the verdict any more."""
    return verification.born_at + TOKEN_LIFETIME


def _unfinished(verification: Verification, now: datetime) -> Step:
    is_registered_only = verification.received_at is None
    if now < (settled_at := _settled_at(verification)):
        look_at = settled_at if is_registered_only else now + growing(LOOK_BASE, LOOK_CAP, verification.looks)
        return LookAgain(min(look_at, settled_at))
    poll_at = now + POLL_INTERVAL if is_registered_only and now + POLL_INTERVAL < _last_try_at(verification) else None
    if verification.state is not State.RETRIEVED:
        return Store(Outcome.UNFINISHED, due_at=poll_at)
    return LookAgain(poll_at) if poll_at and verification.outcome is Outcome.UNFINISHED else Keep()


def _last_try_at(verification: Verification) -> datetime:
    return verification.deadline_at - LAST_TRY


def _trouble(verification: Verification, error_class: ErrorClass, now: datetime, jitter: float) -> Step:
    if error_class in {ErrorClass.FINAL, ErrorClass.EXPIRED} or (now >= _last_try_at(verification)):
        return _hopeless(verification, error_class, now, jitter)
    due_at = min(_retry_at(verification, now, jitter), _last_try_at(verification))
    match error_class:
        case ErrorClass.ACCOUNT | ErrorClass.RULE:
            return Pause(due_at, rule_only=error_class is ErrorClass.RULE)
        case ErrorClass.ASK_FOR_LESS:
            return AskForLess(due_at)
        case ErrorClass.TIMED_OUT if verification.failures >= PATIENCE:
            return AskForLess(due_at)
        case _:
            return Retry(due_at)


def _hopeless(verification: Verification, error_class: ErrorClass, now: datetime, jitter: float) -> Step:
    if error_class is ErrorClass.CLOCK:  # the clock that says so is the one that is wrong
        return Retry(_retry_at(verification, now, jitter))
    if verification.state is State.RETRIEVED:
        return Keep()
    return GiveUp(State.FAILED if error_class is ErrorClass.FINAL else State.EXPIRED)


def _retry_at(verification: Verification, now: datetime, jitter: float) -> datetime:
    return now + growing(RETRY_BASE, RETRY_CAP, verification.failures) * (0.5 + jitter / 2)


def growing(base: timedelta, cap: timedelta, times: int) -> timedelta:
    """`base` doubled `times` times, `cap` at most."""
    return min(base * (1 << min(times, 32)), cap)
