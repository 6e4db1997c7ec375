"""What to do with what Tencent answered: (the row, the reply, the time) -> one `Step`. Pure, fit for a table.

The times are Tencent's: a person may use a token for 7,200 s, and its result can be pulled for 72 h from its creation.
A service that only saw the callback does not know the creation; 70 h from then is what it may count on.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.domain.detection import Outcome
from app.domain.verification import State, Verification

KEPT_FROM_CREATION = timedelta(hours=72)
KEPT_FROM_CALLBACK = timedelta(hours=70)
TOKEN_LIFETIME = timedelta(hours=2, minutes=5)  # 7,200 s in which a person may verify, and some for Tencent's own work
FIRST_POLL = timedelta(minutes=10)  # most people are done by then; a registered token needs no callback
LAST_TRY = timedelta(minutes=1)  # before the deadline: room for one call with its own deadline

RETRY_BASE = timedelta(seconds=1)
RETRY_CAP = timedelta(minutes=5)
OPERATOR_INTERVAL = timedelta(minutes=1)  # an operator's repair is found out within a minute, and no quota is burnt
LOOK_BASE = timedelta(seconds=2)
LOOK_CAP = timedelta(minutes=10)


class ErrorClass(StrEnum):
    """What kind of trouble an error is; who has to act tells them apart."""

    RETRY = "retry"
    SLOW_DOWN = "slow_down"
    ASK_FOR_LESS = "ask_for_less"
    OPERATOR = "operator"
    EXPIRED = "expired"
    FINAL = "final"
    BUG = "bug"


@dataclass(frozen=True, slots=True)
class Found:
    """Tencent answered. `outcome` is None where the text part was not asked for."""

    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """There was no answer, or it was an error of this class."""

    error_class: ErrorClass


Reply = Found | Trouble


@dataclass(frozen=True, slots=True)
class Store:
    """Keep the result. Provisional: the person may still try again, so look once more at `due_at`."""

    outcome: Outcome | None
    provisional: bool = False
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LookAgain:
    """The person is not finished."""

    due_at: datetime


@dataclass(frozen=True, slots=True)
class Retry:
    """Nothing was learned; the token is fine."""

    due_at: datetime


@dataclass(frozen=True, slots=True)
class GiveUp:
    """There will be no result: `state` is `failed` or `expired`."""

    state: State


@dataclass(frozen=True, slots=True)
class Keep:
    """There will be no newer result than the stored one."""


Step = Store | LookAgain | Retry | GiveUp | Keep


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
    if reply.outcome is Outcome.FAILED and now < _settled_at(verification):
        return Store(Outcome.FAILED, provisional=True, due_at=_settled_at(verification))
    return Store(reply.outcome)


def _settled_at(verification: Verification) -> datetime:
    """From when on the person cannot change the verdict any more."""
    return verification.born_at + TOKEN_LIFETIME


def _unfinished(verification: Verification, now: datetime) -> Step:
    settled_at = _settled_at(verification)
    if now >= settled_at:
        return Keep() if verification.state is State.RETRIEVED else Store(Outcome.UNFINISHED)
    if verification.received_at is None:
        return LookAgain(settled_at)
    return LookAgain(min(now + growing(LOOK_BASE, LOOK_CAP, verification.looks), settled_at))


def _trouble(verification: Verification, error_class: ErrorClass, now: datetime, jitter: float) -> Step:
    last_try_at = verification.deadline_at - LAST_TRY
    hopeless = error_class in {ErrorClass.FINAL, ErrorClass.EXPIRED} or now >= last_try_at
    if hopeless and verification.state is State.RETRIEVED:
        return Keep()
    if hopeless:
        return GiveUp(State.FAILED if error_class is ErrorClass.FINAL else State.EXPIRED)
    wait = growing(RETRY_BASE, RETRY_CAP, verification.failures)
    if error_class in {ErrorClass.OPERATOR, ErrorClass.BUG}:
        wait = OPERATOR_INTERVAL
    return Retry(min(now + wait * (0.5 + jitter / 2), last_try_at))


def growing(base: timedelta, cap: timedelta, times: int) -> timedelta:
    """`base` doubled `times` times, `cap` at most."""
    return min(base * (1 << min(times, 32)), cap)
