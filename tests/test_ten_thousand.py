"""Many tokens as a business tells of them: callbacks lost, doubled and out of order, and each result is stored once.

The services' clock is simulated, so that the two hours that a failure stays provisional pass at once. All else is real.
`make ten-thousand` tells of as many; `make test` of four hundred.
"""

import asyncio
import os
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

import pytest
from sqlalchemy import func, select

from app.config import Settings
from app.domain.access import Caller
from app.domain.decision import FIRST_POLL
from app.domain.detection import Outcome
from app.domain.verification import Facts, State
from app.factory import Services, open_retrieval, open_services
from app.services.retrieve import RetrieveService
from app.storage import tables
from simulator.media import media_of
from tests.support.clocks import FixedClock
from tests.support.dice import Dice
from tests.support.service import everything
from tests.support.simulator import NO_QUOTA, LiveSimulator, live_simulator

TOKENS = int(os.environ.get("TEST_TOKENS", "400"))
START = datetime(2026, 11, 23, 8, tzinfo=UTC)
STEP = timedelta(minutes=5)  # of what is told: callbacks come before, with and after the poll that replaces them
POLL = timedelta(seconds=1)  # how often an idle worker looks
AT_ONCE = 16

UNFINISHED, FAILED = "unfinished-2", "failed-2016"
CALLS = {"passed": 1, "garbage-x1": 2, "throttled-1": 2, "http502-x2": 3, UNFINISHED: 3, FAILED: 2}
"""How many calls each scenario takes: a failure is provisional at first, and looked at again when it is settled."""
DRAWN = ["passed"] * 100 + ["garbage-x1", "http502-x2", UNFINISHED, FAILED] * 25 + ["throttled-1"]
# Few are throttled: each makes the account pause for a second of the real clock.


@dataclass(frozen=True, slots=True)
class Token:
    """What a token plays, and when the service is told of it."""

    scenario: str
    number: int
    registered_at: datetime
    called_back_at: tuple[datetime, ...]

    @property
    def biz_token(self) -> str:
        return f"{self.scenario}-n{self.number:05}"

    @property
    def outcome(self) -> Outcome:
        return Outcome.FAILED if self.scenario == FAILED else Outcome.PASSED

    @property
    def calls(self) -> int:
        looked_at = min([self.registered_at + FIRST_POLL, *self.called_back_at])
        again = len({at for at in self.called_back_at if at > looked_at}) if self.scenario == FAILED else 0
        return CALLS[self.scenario] + again  # a callback, or two at once, say that the person may have tried once more

    def media(self, info_type: str) -> int:
        return 0 if info_type == "1" else len(media_of(self.biz_token))


@dataclass(frozen=True)
class Play:
    """The service, what is told to it and the time that passes."""

    services: Services
    retrieval: RetrieveService
    caller: Caller
    clock: FixedClock

    async def perform(self, tokens: Sequence[Token], dice: Dice) -> None:
        """Tells all in its order, and lets everything be retrieved that is due in between and afterwards."""
        messages = [
            (at, dice.draw(), token.biz_token, is_callback)
            for token in tokens
            for is_callback, instants in ((False, [token.registered_at]), (True, token.called_back_at))
            for at in instants
        ]
        for at, told in groupby(sorted(messages), key=lambda message: message[0]):
            await self._work_until(at)
            self.clock.now = at
            waiting = iter([(biz_token, is_callback) for _, _, biz_token, is_callback in told])
            await asyncio.gather(*(self._tell(waiting) for _ in range(AT_ONCE)))
        await self._work_until(None)

    async def _tell(self, waiting: Iterator[tuple[str, bool]]) -> None:
        for biz_token, is_callback in waiting:
            if is_callback:
                await self.services.receive.call_back(self.caller, biz_token, None, None)
            else:
                await self.services.receive.register(self.caller, biz_token, Facts())

    async def _work_until(self, end: datetime | None) -> None:
        while (due_at := await self._next_due()) and (end is None or due_at < end):
            late = (START - due_at) % POLL
            self.clock.now = max(self.clock.now, due_at + late)
            while claims := await self.retrieval.claims.take(AT_ONCE):
                await asyncio.gather(*(self.retrieval.retrieve(claim) for claim in claims))

    async def _next_due(self) -> datetime | None:
        async with self.services.database.read() as tx:
            due_at: datetime | None = await tx.scalar(select(func.min(tables.verification.c.due_at)))
        return due_at


def draw_tokens(dice: Dice, count: int) -> list[Token]:
    """One in 20 is never called back, one in 20 twice."""
    tokens = []
    for number in range(count):
        registered_at = START + STEP * int(1 + 12 * dice.draw())
        delays = [STEP * (int(5 * dice.draw()) - 1) for _ in range({0: 0, 1: 2}.get(number % 20, 1))]
        tokens.append(Token(dice.pick(DRAWN), number, registered_at, tuple(registered_at + delay for delay in delays)))
    return tokens


@asynccontextmanager
async def playing(settings: Settings) -> AsyncIterator[Play]:
    clock = FixedClock(START)
    async with open_services(settings, clock=clock) as services, open_retrieval(services, clock=clock) as retrieval:
        caller, _ = await services.access.create("test", everything(), client="default", valid_for=timedelta(days=1))
        yield Play(services, retrieval, caller, clock)


@pytest.fixture
def all_calls() -> Iterator[LiveSimulator]:
    """A simulator that forgets no call."""
    with live_simulator(NO_QUOTA) as faceid:
        faceid.simulator.ledger.entries = deque()
        yield faceid


@pytest.mark.parametrize(("count", "info_type"), [(TOKENS, "1"), (60, "0")], ids=["text", "everything"])
async def test_whatever_becomes_of_callbacks_every_result_is_retrieved_and_stored_once(
    settings: Settings, all_calls: LiveSimulator, count: int, info_type: str
) -> None:
    dice = Dice("1")
    tokens = draw_tokens(dice, count)
    own = settings.model_copy(update={"faceid_endpoint": all_calls.url, "faceid_info_type": info_type})

    async with playing(own) as play:
        await play.perform(tokens, dice)

        assert await verifications(play.services) == {
            token.biz_token: (State.RETRIEVED, token.outcome, False, None, token.calls) for token in tokens
        }
        assert await stored(play.services) == {token.biz_token: (1, token.media(info_type)) for token in tokens}
        assert await objects(play.services) == sum(token.media(info_type) for token in tokens)
    calls = Counter(entry.biz_token for entry in all_calls.simulator.ledger.entries)
    assert calls == {token.biz_token: token.calls for token in tokens}


async def verifications(services: Services) -> dict[str, tuple[object, ...]]:
    """Where each retrieval stands."""
    table = tables.verification
    columns = (table.c.state, table.c.outcome, table.c.provisional, table.c.due_at, table.c.attempts)
    async with services.database.read() as tx:
        return {row[0]: tuple(row[1:]) for row in await tx.execute(select(table.c.biz_token, *columns))}


async def stored(services: Services) -> dict[str, tuple[int, int]]:
    """How many results are stored of each token, and how many media."""
    table = tables.verification
    counts = [
        select(func.count()).where(part.c.verification_id == table.c.id).scalar_subquery()
        for part in (tables.detection, tables.media)
    ]
    async with services.database.read() as tx:
        return {row[0]: (row[1], row[2]) for row in await tx.execute(select(table.c.biz_token, *counts))}


async def objects(services: Services) -> int:
    """How many objects there are, named or not."""
    return len([None async for _ in services.media.list()])
