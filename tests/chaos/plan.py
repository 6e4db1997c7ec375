"""The notices, kills and faults of a run, with their order and their delays, all drawn from the seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from tests.support.dice import Dice

TOKENS_PER_KILL = 2


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario of the simulator, and the expected end of a verification that plays it."""

    name: str
    state: str = "retrieved"
    err_code: int = 0
    has_video: bool = True
    is_finished_at_once: bool = True


_SCENARIOS = (
    Scenario("passed"),
    Scenario("passed"),
    Scenario("passed"),
    Scenario("slashes"),
    Scenario("novideo", has_video=False),
    Scenario("latency-800-passed"),
    Scenario("failed-2016", err_code=2016),
    Scenario("failed-1001", err_code=1001),
    Scenario("http502-x2-passed"),
    Scenario("garbage-x1-failed-2006", err_code=2006),
    Scenario("cut-x1-passed"),
    Scenario("throttled-1-passed"),
    Scenario("error-InternalError-x1-slashes"),
    Scenario("unfinished-1-passed", is_finished_at_once=False),
    Scenario("unfinished-2-cut-x1-failed-2016", err_code=2016, is_finished_at_once=False),
    Scenario("error-ResponseSizeLimitExceeded-x1-passed"),
    Scenario("expired", state="expired"),
    Scenario("illegal", state="failed"),
)


@dataclass(frozen=True, slots=True)
class Token:
    """A BizToken and its scenario. `age` is the time since its creation, if its registrations state one."""

    biz_token: str
    scenario: Scenario
    age: timedelta | None = None

    @property
    def extra(self) -> str:
        """The Extra of its callbacks."""
        return f"extra of {self.biz_token}"

    @property
    def subject_ref(self) -> str:
        """The subject_ref of its registrations."""
        return f"case of {self.biz_token}"


class NoticeKind(StrEnum):
    """A kind of notice to the service."""

    CALLBACK = "callback"
    REGISTRATION = "registration"


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice about a token, which is sent again until it is acknowledged."""

    token: Token
    kind: NoticeKind


@dataclass(frozen=True, slots=True)
class Kill:
    """A SIGKILL for a process, so many seconds after it is up again, or immediately, even while it starts."""

    target: str
    hold_seconds: float | None


class FaultKind(StrEnum):
    """A kind of fault that kills no process."""

    GARBAGE = "answers are garbage"
    GATEWAY = "answers are 502"
    THROTTLE = "answers are throttled"
    LATE = "answers are late"
    ARREARS = "the account is in arrears"
    HANG = "answers are missing"
    CUT = "connections to FaceID are cut"
    MEDIA = "the media store is unavailable"
    SESSIONS = "connections to Postgres are cut"
    READ_ONLY = "Postgres accepts no writes"
    CLOCK = "a worker has a wrong clock"
    COMMAND = "an operator's command runs"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that lasts so many seconds. A wrong clock is ahead by so many hours."""

    kind: FaultKind
    seconds: float
    hours: float = 0


Event = Notice | Kill | Fault

_KILLED = {
    "sqlite": ("api", "api", "worker-1", "worker-2", "worker-1", "worker-2"),
    "postgres": ("api", "api", "worker-1", "worker-2", "worker-1", "worker-2", "postgres", "postgres backend"),
}
# A worker claims as soon as it is up, so within this time it is in the middle of its work.
_LONGEST_HOLD = 0.4
_OF_A_SERVER = {FaultKind.SESSIONS, FaultKind.READ_ONLY}
# A worker needs about this long to start.
_START_SECONDS = 2.0
_HOURS_AHEAD = (72, 31 * 24, 200 * 24, -48, 1)
# Each call that meets one of these faults waits for seconds.
_SHORT = {FaultKind.HANG: 0.3, FaultKind.THROTTLE: 0.5}


@dataclass(frozen=True, slots=True)
class Plan:
    """The events in order, each with its delay in seconds after the one before."""

    tokens: Sequence[Token]
    events: Sequence[tuple[float, Event]]


def draw_plan(*, seed: int, kills: int, database: str, pace: float) -> Plan:
    """Draws the plan, which is the same for the same arguments on every machine.

    `pace` is the mean of the seconds between two kills.
    """
    dice = Dice(f"{seed} {database}")
    span = kills * pace
    tokens = [_token(dice, f"s{seed}-{number:05}") for number in range(kills * TOKENS_PER_KILL)]
    events: list[Event] = [
        *(notice for token in tokens for notice in _notices(dice, token)),
        *(_kill(dice, database) for _ in range(kills)),
        *(_fault(dice, database) for _ in range(kills // 3)),
        *[Fault(FaultKind.COMMAND, 0.0)] * (kills // 2),
    ]
    timed = sorted((dice.draw() * span, number) for number in range(len(events)))
    starts = [0.0, *(at for at, _ in timed)]
    return Plan(tokens, [(at - before, events[number]) for before, (at, number) in zip(starts, timed, strict=False)])


def _token(dice: Dice, suffix: str) -> Token:
    scenario = dice.pick(_SCENARIOS)
    is_old = dice.draw() < 1 / 4
    return Token(f"{scenario.name}-{suffix}", scenario, timedelta(minutes=15 + 60 * dice.draw()) if is_old else None)


def _notices(dice: Dice, token: Token) -> Iterator[Notice]:
    """Yields one or two notices of each kind. Some tokens lack registrations, some old finished ones lack callbacks."""
    is_registered = token.age is not None or dice.draw() < 1 / 3
    is_lost = token.age is not None and token.scenario.is_finished_at_once and dice.draw() < 1 / 2
    for kind, is_sent in ((NoticeKind.REGISTRATION, is_registered), (NoticeKind.CALLBACK, not is_lost)):
        for _ in range(is_sent * (2 if dice.draw() < 1 / 3 else 1)):
            yield Notice(token, kind)


def _kill(dice: Dice, database: str) -> Kill:
    target, is_at_once = dice.pick(_KILLED[database]), dice.draw() < 1 / 4
    return Kill(target, None if is_at_once else _LONGEST_HOLD * dice.draw())


def _fault(dice: Dice, database: str) -> Fault:
    excluded = {FaultKind.COMMAND} if database == "postgres" else {FaultKind.COMMAND, *_OF_A_SERVER}
    kind = dice.pick([kind for kind in FaultKind if kind not in excluded])
    seconds = _SHORT.get(kind, 0.5 + 1.5 * dice.draw())
    if kind is FaultKind.CLOCK:
        return Fault(kind, _START_SECONDS + seconds, dice.pick(_HOURS_AHEAD))
    return Fault(kind, seconds)
