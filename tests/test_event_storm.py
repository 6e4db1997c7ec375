"""Writers that commit late, roll back or stay open: the change feed and the stream lose no event and repeat none.

`make event-storm` uses 16 writers with 400 transactions each, `make test` uses 8 with 25.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

from app.config import Settings
from app.domain.events import Event, EventFilter
from app.domain.verification import State, Verification
from app.factory import Services, open_services
from app.services.clock import now
from app.storage.database import Database, Transaction
from tests.support.dice import Dice
from tests.support.processes import until
from tests.support.rows import MINIMAL
from tests.support.service import UNLIMITED, actor, changed

WRITERS, TRANSACTIONS = map(int, os.environ.get("TEST_STORM", "8x25").split("x"))
# These shares of the transactions commit late, and roll back.
LATE, LATE_SECONDS, ROLLED_BACK = 0.05, 0.02, 0.03
# Fewer than the writers, so writers meet at the rows of verifications.
TOKENS = [f"token-{number}" for number in range(4)]
BOUND_SECONDS = 120


class RollBackError(Exception):
    """Ends a transaction without a commit."""


@dataclass
class Storm:
    """The revisions that the writers have committed, by token."""

    database: Database
    revisions: Counter[str] = field(default_factory=Counter)

    async def write(self, dice: Dice) -> None:
        """Changes verifications, each in its own transaction."""
        for _ in range(TRANSACTIONS):
            with suppress(RollBackError):
                async with self.database.write() as tx:
                    after = await change(tx, dice.pick(TOKENS))
                    if dice.draw() < LATE:
                        await asyncio.sleep(LATE_SECONDS)
                    if dice.draw() < ROLLED_BACK:
                        raise RollBackError
                self.revisions[after.biz_token] += 1


async def change(tx: Transaction, biz_token: str) -> Verification:
    """Stores another result of a verification, which is an event; returns the row as it was before."""
    (row,) = (await tx.verifications.lock_all([("default", biz_token)])).values()
    await tx.verifications.save(row, replace(row, state=State.RETRIEVED, revision=row.revision + 1), now())
    return row


@asynccontextmanager
async def left_open(database: Database) -> AsyncIterator[None]:
    """Leaves a transaction open during the block: on Postgres one with an event of its own, on SQLite a reader."""
    async with AsyncExitStack() as stack:
        if database.is_embedded:
            # Without the deadline that our reads have.
            connection = await stack.enter_async_context(database.engine.connect())
            await stack.enter_async_context(connection.begin())
            await Transaction(connection).verifications.has_any()
        else:
            tx = await stack.enter_async_context(database.write(seconds=None))
            await change(tx, "open")
        yield


async def add_verifications(database: Database) -> None:
    async with database.write() as tx:
        await tx.verifications.add_all([replace(MINIMAL, biz_token=token) for token in ["open", *TOKENS]])


async def sequence(services: Services) -> None:
    """Assigns positions as fast as possible."""
    while True:
        await services.outbox.sequence()


async def follow_feed(services: Services, received: list[Event]) -> None:
    """Reads page after page, each behind the one before."""
    after = 0
    while True:
        page = await services.events.list(actor(), EventFilter(), after=after, limit=50, wait_seconds=5)
        received += page.events
        after = page.next_after


async def follow_stream(services: Services, received: list[str]) -> None:
    """Reads a stream that is interrupted again and again, and resumes behind the last event."""
    after = 0
    while True:
        async with services.streams.open(actor(), EventFilter(), after=after) as stream:
            for _ in range(20):
                frames = (await stream.next() or b"").decode().split("\n\n")
                events = [frame for frame in frames if frame.startswith("id: ")]
                received += events
                if events:
                    after = int(events[-1].partition("\n")[0].removeprefix("id: "))


def check(received: list[tuple[int, str, str, int]], revisions: Counter[str]) -> None:
    """Compares what a reader has received, as position, id, token and revision, with the committed changes."""
    positions, ids, _, _ = zip(*received, strict=True)
    assert list(positions) == sorted(set(positions))
    assert len(set(ids)) == len(ids)
    for token, count in revisions.items():
        assert [revision for _, _, of, revision in received if of == token] == list(range(1, count + 1))


async def until_received(total: int, *received: Sequence[object]) -> None:
    async def are_received() -> bool:
        return all(len(each) >= total for each in received)

    async with asyncio.timeout(BOUND_SECONDS):
        await until(are_received)


async def test_late_and_lost_transactions_cost_readers_nothing(settings: Settings) -> None:
    pages: list[Event] = []
    frames: list[str] = []
    async with AsyncExitStack() as stack:
        # Two processes: each assigns positions, and one reads.
        unlimited = changed(settings, **UNLIMITED)
        one, other = [await stack.enter_async_context(open_services(unlimited, clock=now)) for _ in range(2)]
        await add_verifications(one.database)
        work = [sequence(one), sequence(other), follow_feed(one, pages), follow_stream(one, frames)]
        running = [asyncio.create_task(each) for each in work]
        storm = Storm(other.database)
        async with left_open(one.database):
            await asyncio.gather(*(storm.write(Dice(f"writer {number}")) for number in range(WRITERS)))
            # The events of the open transaction delay no others.
            await until_received(storm.revisions.total(), pages, frames)
        if not one.database.is_embedded:
            storm.revisions["open"] += 1
        await until_received(storm.revisions.total(), pages, frames)
        for task in running:
            task.cancel()
        ended = await asyncio.gather(*running, return_exceptions=True)

    assert {type(each) for each in ended} == {asyncio.CancelledError}
    assert 0 < storm.revisions.total() < WRITERS * TRANSACTIONS + 1
    check(
        [(one.position or 0, one.public_id, one.biz_token or "", one.revision or 0) for one in pages], storm.revisions
    )
    check([parsed(frame) for frame in frames], storm.revisions)
    assert len(pages) == len(frames) == storm.revisions.total()


def parsed(frame: str) -> tuple[int, str, str, int]:
    lines = dict(line.split(": ", 1) for line in frame.split("\n"))
    event = json.loads(lines["data"])
    return int(lines["id"]), event["id"], event["data"]["biz_token"], event["data"]["revision"]
