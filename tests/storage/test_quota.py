"""Slots lie an interval apart, whoever asks; no clock that jumps makes them crowd or keeps everybody waiting.

What is compared are the instants that the store answers, in whole intervals, which are long: no test is in time.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from app.storage.database import Database, DatabaseSettings
from app.storage.quota import QuotaStore

QUOTA = QuotaStore()
INTERVAL = timedelta(seconds=4)


async def reserve(database: Database, slots: int = 1, *, account: str = "a", interval: timedelta = INTERVAL) -> float:
    async with database.write() as tx:
        return await QUOTA.reserve(tx, account, interval=interval, slots=slots)


async def wait(database: Database, account: str = "a") -> int:
    async with database.read() as tx:
        return round(await QUOTA.wait(tx, account) / INTERVAL)


def intervals(seconds: float) -> int:
    """So many of them; a process that was kept waiting for seconds must not count."""
    return round(seconds / INTERVAL.total_seconds())


async def shift(database: Database, span: timedelta) -> None:
    """As if the database's clock had been set back by the span."""
    async with database.write() as tx:
        statement = "UPDATE quota SET tat_us = tat_us + :span_us"
        await tx.execute(text(statement), {"span_us": span // timedelta(microseconds=1)})


@pytest.fixture
async def another(database_url: str) -> AsyncIterator[Database]:
    """The same database, seen from another process."""
    database = Database(DatabaseSettings(database_url=SecretStr(database_url)))
    yield database
    await database.aclose()


async def test_the_first_slot_of_an_account_is_now(database: Database) -> None:
    assert await wait(database) == 0

    assert intervals(await reserve(database) - time.monotonic()) == 0
    assert await wait(database) == 1


async def test_slots_lie_an_interval_apart_however_many_ask(database: Database, another: Database) -> None:
    asked = [(place % 3 + 1, (database, another)[place % 2]) for place in range(12)]

    firsts = await asyncio.gather(*(reserve(mine, slots) for slots, mine in asked))

    taken = sorted(
        intervals(first - min(firsts)) + place
        for first, (count, _) in zip(firsts, asked, strict=True)
        for place in range(count)
    )
    assert taken == list(range(24))


async def test_an_interval_that_is_no_whole_number_of_anything_is_kept(database: Database) -> None:
    interval = timedelta(seconds=1) / 0.7

    first = await reserve(database, 7, interval=interval)
    last = await reserve(database, 1, interval=interval)

    assert round(last - first) == 10


async def test_accounts_do_not_share_their_slots(database: Database) -> None:
    await reserve(database, 50)

    assert intervals(await reserve(database, account="b") - time.monotonic()) == 0


async def test_an_account_that_was_idle_has_not_saved_up_slots(database: Database) -> None:
    await reserve(database)
    await shift(database, -timedelta(hours=1))

    first, second = await reserve(database), await reserve(database)

    assert (intervals(first - time.monotonic()), intervals(second - first)) == (0, 1)


async def test_slowing_down_leaves_out_the_next_slots_for_everybody(database: Database, another: Database) -> None:
    await reserve(database)
    for _ in range(3):  # they do not add up: all were told of the same moment
        async with database.write() as tx:
            await QUOTA.slow_down(tx, "a", pause=10 * INTERVAL)

    assert await wait(another) == 10
    assert intervals(await reserve(another) - time.monotonic()) == 10


async def test_slowing_down_takes_back_no_slot_that_lies_later(database: Database) -> None:
    await reserve(database, 20)
    async with database.write() as tx:
        await QUOTA.slow_down(tx, "a", pause=INTERVAL)

    assert await wait(database) == 20


async def test_a_clock_that_was_set_back_keeps_nobody_waiting(database: Database) -> None:
    await reserve(database)
    await shift(database, timedelta(days=400))

    assert await wait(database) == 0
    first, second = await reserve(database), await reserve(database)

    assert (intervals(first - time.monotonic()), intervals(second - first)) == (0, 1)


async def test_a_reservation_that_is_rolled_back_took_no_slot(database: Database) -> None:
    async def fail() -> None:
        async with database.write() as tx:
            await QUOTA.reserve(tx, "a", interval=INTERVAL, slots=50)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    assert await wait(database) == 0


async def test_instants_are_whole_microseconds_of_this_century(database: Database) -> None:
    """A float for a bigint is cut off by asyncpg, in silence; an integer that is too narrow would overflow."""
    await reserve(database)

    async with database.read() as tx:
        tat_us = await tx.scalar(text("SELECT tat_us FROM quota"))
    assert isinstance(tat_us, int)
    assert intervals(tat_us / 1e6 - time.time()) == 1
