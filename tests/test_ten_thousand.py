"""Many tokens with lost, repeated and reordered callbacks and a jumping clock: each result is stored once.

The services' clock is simulated, so the two hours for which a failure is provisional pass at once. Everything else is
real. `make ten-thousand` uses 10,000 tokens, `make test` uses 400.
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
from app.domain.api_key import Caller
from app.domain.decision import FIRST_POLL
from app.domain.detection import Outcome
from app.domain.verification import State, TokenFacts
from app.factory import RetrievalServices, Services, open_retrieval, open_services
from app.storage import tables
from simulator.media import media_of
from tests.support.clocks import FixedClock
from tests.support.dice import Dice
from tests.support.service import UNLIMITED, actor, changed, everything
from tests.support.simulator import NO_QUOTA, LiveSimulator, live_simulator

TOKENS = int(os.environ.get("TEST_TOKENS", "200"))
START = datetime(2026, 11, 23, 8, tzinfo=UTC)
# The step between notices. Callbacks come before, with and after the poll that replaces them.
STEP = timedelta(minutes=5)
# The interval of an idle worker's polls.
POLL = timedelta(seconds=1)
CONCURRENCY = 16
# This share of the notices meets a clock that is ahead by this much.
JUMPS, JUMP = 0.05, timedelta(days=3)

UNFINISHED, FAILED = "unfinished-2", "failed-2016"
CALLS = {"passed": 1, "garbage-x1": 2, "throttled-1": 2, "http502-x2": 3, UNFINISHED: 3, FAILED: 2}
"""The number of calls of each scenario. A failure is provisional at first and polled again when it is final."""
# Few are throttled, because each delays the account for a second of the real clock.
DRAWN = ["passed"] * 100 + ["garbage-x1", "http502-x2", UNFINISHED, FAILED] * 25 + ["throttled-1"]


@dataclass(frozen=True, slots=True)
class Token:
    """A token, its scenario, and the times of its notices."""

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
        first_call_at = min([self.registered_at + FIRST_POLL, *self.called_back_at])
        # After a failure the person may have tried again, so later callbacks cause calls, one for each time.
        repeats = len({at for at in self.called_back_at if at > first_call_at}) if self.scenario == FAILED else 0
        return CALLS[self.scenario] + repeats

    def media(self, info_type: str) -> int:
        return 0 if info_type == "1" else len(media_of(self.biz_token))


@dataclass(frozen=True)
class Simulation:
    """The services with a simulated clock, which the notices and the due times move."""

    services: Services
    retrieval: RetrievalServices
    caller: Caller
    clock: FixedClock

    async def run(self, tokens: Sequence[Token], dice: Dice) -> None:
        """Sends all notices in order, and retrieves everything that is due in between and afterwards."""
        messages = [
            (at, dice.draw(), token.biz_token, is_callback)
            for token in tokens
            for is_callback, instants in ((False, [token.registered_at]), (True, token.called_back_at))
            for at in instants
        ]
        for at, group in groupby(sorted(messages), key=lambda message: message[0]):
            await self._work_until(at)
            notices = [(drawn < JUMPS, biz_token, is_callback) for _, drawn, biz_token, is_callback in group]
            for is_jump in (False, True):
                self.clock.now = at + JUMP * is_jump
                some = [notice[1:] for notice in notices if (notice[0] and can_jump(notice[1])) == is_jump]
                waiting = iter(some)
                await asyncio.gather(*(self._send(waiting) for _ in range(CONCURRENCY)))
            self.clock.now = at
            await self.retrieval.claims.bring_forward()
        await self._work_until(None)

    async def _send(self, waiting: Iterator[tuple[str, bool]]) -> None:
        for biz_token, is_callback in waiting:
            if is_callback:
                await self.services.intake.call_back(actor(self.caller), biz_token, None, None)
            else:
                await self.services.intake.register(actor(self.caller), biz_token, TokenFacts())

    async def _work_until(self, end: datetime | None) -> None:
        while (due_at := await self._next_due()) and (end is None or due_at < end):
            delay = (START - due_at) % POLL
            self.clock.now = max(self.clock.now, due_at + delay)
            while claims := await self.retrieval.claims.take(CONCURRENCY):
                await asyncio.gather(*(self.retrieval.retrieve.retrieve(claim) for claim in claims))

    async def _next_due(self) -> datetime | None:
        async with self.services.database.read() as tx:
            due_at: datetime | None = await tx.connection.scalar(select(func.min(tables.verification.c.due_at)))
        return due_at


def can_jump(biz_token: str) -> bool:
    """Returns whether the number of calls of a token does not depend on the times of its notices."""
    return not biz_token.startswith((UNFINISHED, FAILED))


def draw_tokens(dice: Dice, count: int) -> list[Token]:
    """Draws tokens. One in 20 is never called back, one in 20 twice."""
    tokens = []
    for number in range(count):
        registered_at = START + STEP * int(1 + 12 * dice.draw())
        delays = [STEP * (int(5 * dice.draw()) - 1) for _ in range({0: 0, 1: 2}.get(number % 20, 1))]
        tokens.append(Token(dice.pick(DRAWN), number, registered_at, tuple(registered_at + delay for delay in delays)))
    return tokens


@asynccontextmanager
async def simulating(settings: Settings) -> AsyncIterator[Simulation]:
    clock = FixedClock(START)
    async with open_services(settings, clock=clock) as services, open_retrieval(services) as retrieval:
        caller, _ = await services.api_keys.create(
            actor(), "test", everything(), client="default", valid_for=timedelta(days=1)
        )
        yield Simulation(services, retrieval, caller, clock)


@pytest.fixture
def all_calls() -> Iterator[LiveSimulator]:
    """A simulator whose ledger keeps all calls."""
    with live_simulator(NO_QUOTA) as faceid:
        faceid.simulator.ledger.entries = deque()
        yield faceid


@pytest.mark.parametrize(("count", "info_type"), [(TOKENS, "1"), (60, "0")], ids=["text", "everything"])
async def test_each_result_is_stored_once_despite_lost_callbacks(
    settings: Settings, all_calls: LiveSimulator, count: int, info_type: str
) -> None:
    dice = Dice("1")
    tokens = draw_tokens(dice, count)
    own = changed(settings, faceid_endpoint=all_calls.url, faceid_info_type=info_type, **UNLIMITED)

    async with simulating(own) as simulation:
        await simulation.run(tokens, dice)

        # Calls that the jumping clock scheduled were not waited for.
        assert simulation.clock.now < START + JUMP
        assert await verifications(simulation.services) == {
            token.biz_token: (State.RETRIEVED, token.outcome, False, None, token.calls) for token in tokens
        }
        assert await stored(simulation.services) == {token.biz_token: (1, token.media(info_type)) for token in tokens}
        assert await objects(simulation.services) == sum(token.media(info_type) for token in tokens)
    calls = Counter(entry.biz_token for entry in all_calls.simulator.ledger.entries)
    assert calls == {token.biz_token: token.calls for token in tokens}


async def verifications(services: Services) -> dict[str, tuple[object, ...]]:
    """Returns the state of each retrieval, by token."""
    table = tables.verification
    columns = (table.c.state, table.c.outcome, table.c.provisional, table.c.due_at, table.c.attempts)
    async with services.database.read() as tx:
        return {row[0]: tuple(row[1:]) for row in await tx.connection.execute(select(table.c.biz_token, *columns))}


async def stored(services: Services) -> dict[str, tuple[int, int]]:
    """Returns the numbers of stored results and media, by token."""
    table = tables.verification
    counts = [
        select(func.count()).where(part.c.verification_id == table.c.id).scalar_subquery()
        for part in (tables.detection, tables.media)
    ]
    async with services.database.read() as tx:
        return {row[0]: (row[1], row[2]) for row in await tx.connection.execute(select(table.c.biz_token, *counts))}


async def objects(services: Services) -> int:
    """Returns the number of objects, with or without a row."""
    return len([None async for _ in services.media_store.list()])
