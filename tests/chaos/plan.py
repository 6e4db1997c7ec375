"""What is told and what breaks, in which order and how long after what came before: all of it drawn from the seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from tests.support.dice import Dice

TOKENS_PER_KILL = 2


@dataclass(frozen=True, slots=True)
class Story:
    """A scenario of the simulator, and how a verification that plays it must end."""

    scenario: str
    state: str = "retrieved"
    err_code: int = 0
    has_video: bool = True
    is_finished_at_once: bool = True


_STORIES = (
    Story("passed"),
    Story("passed"),
    Story("passed"),
    Story("slashes"),
    Story("novideo", has_video=False),
    Story("latency-800-passed"),
    Story("failed-2016", err_code=2016),
    Story("failed-1001", err_code=1001),
    Story("http502-x2-passed"),
    Story("garbage-x1-failed-2006", err_code=2006),
    Story("cut-x1-passed"),
    Story("throttled-1-passed"),
    Story("error-InternalError-x1-slashes"),
    Story("unfinished-1-passed", is_finished_at_once=False),
    Story("unfinished-2-cut-x1-failed-2016", err_code=2016, is_finished_at_once=False),
    Story("error-ResponseSizeLimitExceeded-x1-passed"),
    Story("expired", state="expired"),
    Story("illegal", state="failed"),
)


@dataclass(frozen=True, slots=True)
class Token:
    """A BizToken and its story; `age` is how long ago it was created, where somebody says so."""

    biz_token: str
    story: Story
    age: timedelta | None = None

    @property
    def extra(self) -> str:
        """What comes with its callbacks."""
        return f"extra of {self.biz_token}"

    @property
    def subject_ref(self) -> str:
        """What comes with its registrations."""
        return f"case of {self.biz_token}"


class Told(StrEnum):
    """What the service is told of a token."""

    CALLBACK = "callback"
    REGISTRATION = "registration"


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell it, again and again until it is acknowledged."""

    token: Token
    told: Told


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill -9 a process: that many seconds after it is up again, or at once, even while it starts."""

    target: str
    hold_seconds: float | None


class FaultKind(StrEnum):
    """What can go wrong without a death."""

    GARBAGE = "answers are garbage"
    GATEWAY = "answers are 502"
    THROTTLE = "answers are throttled"
    LATE = "answers are late"
    ARREARS = "the account is in arrears"
    HANG = "answers never come"
    CUT = "connections to FaceID are cut"
    MEDIA = "the media store is away"
    SESSIONS = "connections to Postgres are cut"
    COMMAND = "an operator's command comes and goes"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something goes wrong for that long."""

    kind: FaultKind
    seconds: float


Event = Tell | Kill | Fault

_KILLED = {
    "sqlite": ("api", "api", "worker-1", "worker-2", "worker-1", "worker-2"),
    "postgres": ("api", "api", "worker-1", "worker-2", "worker-1", "worker-2", "postgres", "postgres backend"),
}
_LONGEST_HOLD = 0.4  # a worker that comes up claims at once: this is where it is in the middle of something
_SHORT = {FaultKind.HANG: 0.3, FaultKind.THROTTLE: 0.5}  # each call that they meet waits for seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """The events in their order, each with the seconds by which it follows the one before."""

    tokens: Sequence[Token]
    events: Sequence[tuple[float, Event]]


def draw_plan(*, seed: int, kills: int, database: str, pace: float) -> Plan:
    """The same for the same arguments, on every machine; `pace` is the mean of the seconds between two kills."""
    dice = Dice(f"{seed} {database}")
    span = kills * pace
    tokens = [_token(dice, f"s{seed}-{number:05}") for number in range(kills * TOKENS_PER_KILL)]
    events: list[Event] = [
        *(tell for token in tokens for tell in _tells(dice, token)),
        *(_kill(dice, database) for _ in range(kills)),
        *(_fault(dice, database) for _ in range(kills // 3)),
        *[Fault(FaultKind.COMMAND, 0.0)] * (kills // 2),
    ]
    timed = sorted((dice.draw() * span, number) for number in range(len(events)))
    starts = [0.0, *(at for at, _ in timed)]
    return Plan(tokens, [(at - before, events[number]) for before, (at, number) in zip(starts, timed, strict=False)])


def _token(dice: Dice, suffix: str) -> Token:
    story = dice.pick(_STORIES)
    is_old = dice.draw() < 1 / 4
    return Token(f"{story.scenario}-{suffix}", story, timedelta(minutes=15 + 60 * dice.draw()) if is_old else None)


def _tells(dice: Dice, token: Token) -> Iterator[Tell]:
    """A callback, or two; a registration, or two, or neither; of a finished token that is old enough, that alone."""
    is_registered = token.age is not None or dice.draw() < 1 / 3
    is_lost = token.age is not None and token.story.is_finished_at_once and dice.draw() < 1 / 2
    for told, is_told in ((Told.REGISTRATION, is_registered), (Told.CALLBACK, not is_lost)):
        for _ in range(is_told * (2 if dice.draw() < 1 / 3 else 1)):
            yield Tell(token, told)


def _kill(dice: Dice, database: str) -> Kill:
    target, is_at_once = dice.pick(_KILLED[database]), dice.draw() < 1 / 4
    return Kill(target, None if is_at_once else _LONGEST_HOLD * dice.draw())


def _fault(dice: Dice, database: str) -> Fault:
    others = {FaultKind.COMMAND} if database == "postgres" else {FaultKind.COMMAND, FaultKind.SESSIONS}
    kind = dice.pick([kind for kind in FaultKind if kind not in others])
    return Fault(kind, _SHORT.get(kind, 0.5 + 1.5 * dice.draw()))
