"""Statistics: how many verifications there are, by day, client, rule, state, outcome and result code.

A verification counts on the day on which it was accepted, in Beijing time. Counts contain no personal data, so an
erasure does not change them: the numbers of a month stay when its data are gone.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from enum import StrEnum

from app.domain.detection import Outcome
from app.domain.verification import State, Verification

BEIJING = timezone(timedelta(hours=8), "Asia/Shanghai")
"""The time zone of the days. It has no daylight saving time."""


class Dimension(StrEnum):
    """The properties by which verifications are counted. The value is the name of the field of `Group`."""

    DAY = "day"
    CLIENT = "client"
    RULE_ID = "rule_id"
    STATE = "state"
    OUTCOME = "outcome"
    ERR_CODE = "err_code"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The verifications that have these values."""

    day: date
    client: str
    rule_id: str
    state: State
    outcome: Outcome | None
    err_code: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CountFilter:
    """The verifications to count: of the days from `start` to `end`, both included, and of one client or of all."""

    start: date
    end: date
    client: str | None = None


def day_of(at: datetime) -> date:
    """Returns the day of an instant in Beijing time."""
    return at.astimezone(BEIJING).date()


def group_of(verification: Verification) -> Group | None:
    """Returns the group of a verification; None before it is accepted, and for a malformed row."""
    accepted = [at for at in (verification.registered_at, verification.received_at) if at]
    if not accepted or verification.is_malformed:
        return None
    return Group(
        day=day_of(min(accepted)),
        client=verification.client,
        rule_id=verification.rule_id,
        state=verification.state,
        outcome=verification.outcome,
        err_code=verification.err_code,
    )


def differences(changes: Iterable[tuple[Verification | None, Verification]]) -> Mapping[Group, int]:
    """Returns by how much changes of verifications change the counts; before an insertion there is None."""
    counts: Counter[Group] = Counter()
    for before, after in changes:
        if after.state is State.ERASED:
            continue
        for verification, number in ((before, -1), (after, 1)):
            if verification and (group := group_of(verification)):
                counts[group] += number
    return {group: number for group, number in counts.items() if number}
