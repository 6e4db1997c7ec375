"""Decides what to do after a reply of Tencent: (row, reply, time) -> one `Step`. Pure, tested as a table.

The times are Tencent's: a person may use a token for 7,200 s, and its result is available for 72 h from its creation.
If the creation is not known, the result is certain for 70 h from the first notice: a token is at most 2 h old then.

Clocks lie. A verification expires only because Tencent says so, or because its deadline passed by a trusted clock.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from app.domain.detection import Outcome, Part
from app.domain.media import UnreadableMedia
from app.domain.verification import State, Verification

KEPT_FROM_CREATION = timedelta(hours=72)
KEPT_FROM_FIRST_NOTICE = timedelta(hours=70)
# 7,200 s for the person, and a margin for Tencent's own processing.
TOKEN_LIFETIME = timedelta(hours=2, minutes=5)
# Most persons are done by then. A registered token needs no callback.
FIRST_POLL = timedelta(minutes=10)
# For a registered token that was not finished in time and not called back.
POLL_INTERVAL = timedelta(hours=1)
# Before the deadline: leaves room for one call with its own deadline.
LAST_TRY = timedelta(minutes=1)
# No call is scheduled further ahead. A caller that states the creation may be ahead of us by the rest.
LONGEST_STEP = TOKEN_LIFETIME + timedelta(minutes=10)

# When to ask again for parts that a result lacks: media may be stored late. Once more before the deadline.
MEDIA_POLLS = (timedelta(seconds=5), timedelta(seconds=30), timedelta(minutes=5), timedelta(hours=1))
LAST_MEDIA_POLL = timedelta(hours=1)

RETRY_BASE = timedelta(seconds=1)
RETRY_CAP = timedelta(minutes=5)
# A timeout after this many consecutive failures is taken for too much at once.
FAILURES_BEFORE_SPLIT = 2
POLL_BASE = timedelta(seconds=2)
POLL_CAP = timedelta(minutes=10)

# Between two calls for one token, however often it is reported: at first, and after many polls. A person takes minutes.
CALL_INTERVAL = timedelta(seconds=2)
CALL_INTERVAL_CAP = timedelta(seconds=30)
# Between two calls for a stored result, however often it is requested again.
REPEAT_INTERVAL = timedelta(seconds=10)


class ErrorClass(StrEnum):
    """The kinds of errors, by what has to happen next."""

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
class Answered:
    """Tencent returned a result. `outcome` is None if the text was not requested.

    `fetched_parts` are the parts stored after this reply, `missing` those that the rule wants and no call has requested
    yet. `awaited` are the wanted parts that Tencent did not return although they were requested, or whose media were
    `unreadable`.
    """

    outcome: Outcome | None
    fetched_parts: frozenset[Part] = frozenset()
    missing: frozenset[Part] = frozenset()
    awaited: frozenset[Part] = frozenset()
    unreadable: tuple[UnreadableMedia, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """There was no answer, or an error of this class."""

    error_class: ErrorClass


Reply = Answered | Failure


@dataclass(frozen=True, slots=True)
class Store:
    """Store what was returned; an `outcome` of None keeps the known one.

    `provisional`: the person may still try again, so poll once more. `fetched_parts` is not empty while other parts are
    to follow, `awaited` while Tencent is asked again for parts that it lacked. `unreadable` are the media of this and
    earlier answers that could not be read.
    """

    outcome: Outcome | None
    provisional: bool = False
    due_at: datetime | None = None
    fetched_parts: frozenset[Part] = frozenset()
    awaited: frozenset[Part] = frozenset()
    unreadable: tuple[UnreadableMedia, ...] = ()


@dataclass(frozen=True, slots=True)
class PollAgain:
    """The person is not finished."""

    due_at: datetime


@dataclass(frozen=True, slots=True)
class Retry:
    """The call failed without a statement about the token."""

    due_at: datetime


@dataclass(frozen=True, slots=True)
class FetchSeparately:
    """All parts at once were too much: fetch them one by one from now on."""

    due_at: datetime


@dataclass(frozen=True, slots=True)
class PauseCalls:
    """An operator must act, for the account or only for this rule of it. The token itself is valid."""

    due_at: datetime
    rule_only: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """There will be no result: `state` is `failed` or `expired`."""

    state: State


@dataclass(frozen=True, slots=True)
class NoChange:
    """Keep the stored result and finish: there will be no newer one."""


Step = Store | PollAgain | Retry | FetchSeparately | PauseCalls | GiveUp | NoChange


def deadline(*, created_at: datetime | None, registered_at: datetime | None, received_at: datetime | None) -> datetime:
    """Returns until when Tencent keeps the result. At least one of the three instants must be known."""
    if created_at:
        return created_at + KEPT_FROM_CREATION
    first = received_at or registered_at
    if first is None:
        raise ValueError("a verification is registered or called back, or both")
    certain = first + KEPT_FROM_FIRST_NOTICE
    return min(certain, registered_at + KEPT_FROM_CREATION) if registered_at else certain


def decide(
    verification: Verification, reply: Reply, now: datetime, *, jitter: float, is_clock_trusted: bool = True
) -> Step:
    """Decides the next step of a retrieval. No other place chooses one.

    Args:
        verification: the row as claimed, before this call is counted.
        reply: what the call returned.
        now: when it returned.
        jitter: a random number in [0, 1); spreads retries over the upper half of their interval.
        is_clock_trusted: whether `now` can prove that the deadline has passed.
    """
    if isinstance(reply, Failure):
        return _after_failure(verification, reply.error_class, now, jitter, is_clock_trusted=is_clock_trusted)
    if reply.outcome is Outcome.UNFINISHED:
        return _after_unfinished(verification, now)
    if reply.outcome:
        provisional = reply.outcome is Outcome.FAILED and now < _settled_at(verification, now)
    else:
        # The verdict of the text, which was stored before this part, stays.
        provisional = verification.provisional and Part.TEXT in verification.fetched_parts
    if reply.missing:
        return Store(reply.outcome, provisional, now, reply.fetched_parts, reply.awaited, reply.unreadable)
    # Everything is requested again when a provisional verdict is settled.
    settled_at = max(now, _settled_at(verification, now)) if provisional else None
    poll_at = _next_media_poll(verification, now) if reply.awaited else None
    if poll_at is None or (settled_at and settled_at <= poll_at):
        return Store(reply.outcome, provisional, settled_at, unreadable=reply.unreadable)
    return Store(reply.outcome, provisional, poll_at, awaited=reply.awaited, unreadable=reply.unreadable)


def backoff(base: timedelta, cap: timedelta, times: int) -> timedelta:
    """Returns `base` doubled `times` times, at most `cap`."""
    return min(base * (1 << min(times, 32)), cap)


def _next_media_poll(verification: Verification, now: datetime) -> datetime | None:
    """Returns when to ask again for parts that are lacking; None after the last time."""
    last_at = verification.deadline_at - LAST_MEDIA_POLL
    intervals = MEDIA_POLLS[verification.media_polls :]
    if intervals and now + intervals[0] < last_at:
        return now + intervals[0]
    return last_at if now < last_at else None


def _settled_at(verification: Verification, now: datetime) -> datetime:
    """Returns from when on the person can no longer change the verdict. A notice of the future had a wrong clock."""
    return min(verification.born_at, now) + TOKEN_LIFETIME


def _last_try_at(verification: Verification) -> datetime:
    return verification.deadline_at - LAST_TRY


def _after_unfinished(verification: Verification, now: datetime) -> Step:
    is_registered_only = verification.received_at is None
    if now < (settled_at := _settled_at(verification, now)):
        poll_at = settled_at if is_registered_only else now + backoff(POLL_BASE, POLL_CAP, verification.polls)
        return PollAgain(min(poll_at, settled_at))
    next_at = now + POLL_INTERVAL if is_registered_only and now + POLL_INTERVAL < _last_try_at(verification) else None
    if verification.state is not State.RETRIEVED:
        return Store(Outcome.UNFINISHED, due_at=next_at)
    return PollAgain(next_at) if next_at and verification.outcome is Outcome.UNFINISHED else NoChange()


def _after_failure(
    verification: Verification, error_class: ErrorClass, now: datetime, jitter: float, *, is_clock_trusted: bool
) -> Step:
    is_over = now >= _last_try_at(verification)
    # Tencent rejects the clock, so it proves nothing, not even that the deadline has passed.
    can_prove = is_clock_trusted and error_class is not ErrorClass.CLOCK
    if error_class in {ErrorClass.FINAL, ErrorClass.EXPIRED} or (is_over and can_prove):
        return _hopeless(verification, error_class)
    retry_at = now + backoff(RETRY_BASE, RETRY_CAP, verification.failures) * (0.5 + jitter / 2)
    due_at = min(retry_at, verification.deadline_at if is_over else _last_try_at(verification))
    match error_class:
        case ErrorClass.ACCOUNT | ErrorClass.RULE:
            return PauseCalls(due_at, rule_only=error_class is ErrorClass.RULE)
        case ErrorClass.ASK_FOR_LESS:
            return FetchSeparately(due_at)
        case ErrorClass.TIMED_OUT:
            return FetchSeparately(due_at) if verification.failures >= FAILURES_BEFORE_SPLIT else Retry(due_at)
        case ErrorClass.RETRY | ErrorClass.SLOW_DOWN | ErrorClass.CLOCK | ErrorClass.BUG:
            return Retry(due_at)
        case _:
            assert_never(error_class)


def _hopeless(verification: Verification, error_class: ErrorClass) -> Step:
    if verification.state is State.RETRIEVED:
        return NoChange()
    return GiveUp(State.FAILED if error_class is ErrorClass.FINAL else State.EXPIRED)
