"""The days before the demo: which people verified themselves, when, and what was done with their results.

The people are invented. The same seed and the same end give the same people on every machine.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from simulator.people import Dice

ZONE = ZoneInfo("Asia/Shanghai")

LOANS, WALLET = "loans", "wallet"
RULES = {LOANS: "1", WALLET: "2"}
"""The RuleId of each client. The results of rule 2 have no media, and its account is in arrears at the end."""

ARREARS = "error-UnauthorizedOperation.Arrears"
_IN_ARREARS = timedelta(minutes=36)
"""How long before the end the account of the wallet ran out of money."""

# How people end, by client: a hundred draws. Codes of all groups occur.
_ENDS = {
    LOANS: ["passed"] * 78
    + ["failed-2016"] * 6
    + ["failed-1004"] * 3
    + ["failed-1002", "failed-2006", "failed-302"] * 2
    + ["failed-303", "failed-2005", "failed-16"]
    + ["http502-x1-passed", "error-InternalError-x2-passed"]
    + ["unfinished"] * 2,
    WALLET: ["passed"] * 84
    + ["failed-1004"] * 4
    + ["failed-1201", "failed-1008"] * 2
    + ["failed-2016"] * 3
    + ["failed-204"] * 2
    + ["unfinished-2-passed"] * 2
    + ["unfinished"],
}
_RARE = ("expired", "illegal", "expired")
_WORKDAY, _WEEKEND = 9, 5
_SATURDAY = 5
_OPENS, _HOURS = 8, 14
_LOST_CALLBACKS = 25
# Of the latest cases, by their age in minutes.
_FAILED = (97, 52)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One person: DetectAuth returned the token at `begun_at`. Without `finished_at` there was no callback."""

    biz_token: str
    client: str
    scenario: str
    subject_ref: str
    begun_at: datetime
    finished_at: datetime | None

    @property
    def rule_id(self) -> str:
        """The RuleId."""
        return RULES[self.client]


def plan_days(seed: str, end: datetime, days: int) -> Sequence[Case]:
    """Returns the cases of the last days before `end`, oldest first."""
    cases = [*_past(seed, end, days), *_latest(seed, end)]
    return sorted(cases, key=lambda case: case.begun_at)


def _past(seed: str, end: datetime, days: int) -> Iterator[Case]:
    """Yields the cases until three hours before the end."""
    last = end.astimezone(ZONE).date()
    for ago in range(days - 1, -1, -1):
        day = last - timedelta(days=ago)
        for number in range(_people_on(seed, day, ago)):
            dice = Dice(f"{seed} {day} {number}")
            hours = _OPENS + _HOURS * (dice.draw(1000) + dice.draw(1000)) / 2000
            begun_at = datetime.combine(day, time(), ZONE) + timedelta(hours=hours, milliseconds=dice.draw(997))
            if begun_at < end - timedelta(hours=3):
                # Each kind of a notice that came to nothing happened once.
                rare = _RARE[ago // 9 - 1] if ago % 9 == 0 and ago and number == 1 else None
                yield _drawn(dice, begun_at, rare)


def _people_on(seed: str, day: date, ago: int) -> int:
    """Returns how many people came on a day. The business grows."""
    usual = _WEEKEND if day.weekday() >= _SATURDAY else _WORKDAY
    return round(usual * (1.25 - ago / 100)) + Dice(f"{seed} {day}").draw(5) - 2


def _drawn(dice: Dice, begun_at: datetime, scenario: str | None = None, client: str | None = None) -> Case:
    client = client or (LOANS, WALLET, LOANS)[dice.draw(3)]
    scenario = scenario or _ENDS[client][dice.draw(100)]
    # The back end calls back when the token can no longer be used.
    seconds = 7800 if scenario == "unfinished" else 45 + dice.draw(200)
    is_lost = dice.draw(_LOST_CALLBACKS) == 0
    prefix = {LOANS: "loan", WALLET: "user"}[client]
    return Case(
        biz_token=str(uuid.UUID(int=dice.draw(2**128), version=4)).upper(),
        client=client,
        scenario=scenario,
        subject_ref=f"{prefix}-{10_000 + dice.draw(90_000)}",
        begun_at=begun_at,
        finished_at=None if is_lost else begun_at + timedelta(seconds=seconds, milliseconds=dice.draw(997)),
    )


def _latest(seed: str, end: datetime) -> Iterator[Case]:
    """Yields the cases of the last three hours, at any time of the day, with those in arrears and a pending one."""
    for minutes in (170, 158, 141, 128, 112, 97, 83, 66, 52, 41, 23, 12):
        # Later ones of the wallet wait for its account.
        client = LOANS if minutes in _FAILED or timedelta(minutes=minutes) < _IN_ARREARS else None
        scenario = "failed-2016" if minutes in _FAILED else "passed"
        yield _latest_case(seed, end, minutes, scenario, client)
    for minutes in (34, 26, 18, 11):
        yield _latest_case(seed, end, minutes, ARREARS, WALLET)
    yield _latest_case(seed, end, 4, "unfinished", LOANS)


def _latest_case(seed: str, end: datetime, minutes: int, scenario: str, client: str | None) -> Case:
    dice = Dice(f"{seed} {minutes} minutes ago")
    return _drawn(dice, end - timedelta(minutes=minutes, milliseconds=dice.draw(60_000)), scenario, client)
