"""Slots are one interval apart, and a clock that jumps neither crowds them nor delays anybody.

The tests compare the instants that the store returns, in whole intervals. An interval is long, so no test depends on
its own speed.
"""

import asyncio
import time
from datetime import timedelta

import pytest
from sqlalchemy import text

from app.storage.database import Database

INTERVAL = timedelta(seconds=4)


async def reserve(database: Database, slots: int = 1, *, account: str = "a", interval: timedelta = INTERVAL) -> float:
    async with database.write() as tx:
        return await tx.quota.reserve(account, interval=interval, slots=slots)


async def wait(database: Database, account: str = "a") -> int:
    async with database.read() as tx:
        return round(await tx.quota.wait(account) / INTERVAL)


def intervals(seconds: float) -> int:
    """Rounds to whole intervals, so a process that was suspended for a second or two does not matter."""
    return round(seconds / INTERVAL.total_seconds())


async def shift(database: Database, span: timedelta) -> None:
    """Moves the slots as if the database's clock had been set back by the span."""
    async with database.write() as tx:
        statement = "UPDATE quota SET tat_us = tat_us + :span_us"
        await tx.connection.execute(text(statement), {"span_us": span // timedelta(microseconds=1)})


async def test_first_slot_of_an_account_is_now(database: Database) -> None:
    assert await wait(database) == 0

    assert intervals(await reserve(database) - time.monotonic()) == 0
    assert await wait(database) == 1


async def test_slots_are_one_interval_apart_for_all_processes(database: Database, another: Database) -> None:
    asked = [(place % 3 + 1, (database, another)[place % 2]) for place in range(12)]

    firsts = await asyncio.gather(*(reserve(mine, slots) for slots, mine in asked))

    taken = sorted(
        intervals(first - min(firsts)) + place
        for first, (count, _) in zip(firsts, asked, strict=True)
        for place in range(count)
    )
    assert taken == list(range(24))


async def test_fractional_interval_is_kept(database: Database) -> None:
    interval = timedelta(seconds=1) / 0.7

    first = await reserve(database, 7, interval=interval)
    last = await reserve(database, 1, interval=interval)

    assert round(last - first) == 10


async def test_accounts_do_not_share_slots(database: Database) -> None:
    await reserve(database, 50)

    assert intervals(await reserve(database, account="b") - time.monotonic()) == 0


async def test_idle_account_does_not_save_up_slots(database: Database) -> None:
    await reserve(database)
    await shift(database, -timedelta(hours=1))

    first, second = await reserve(database), await reserve(database)

    assert (intervals(first - time.monotonic()), intervals(second - first)) == (0, 1)


async def test_slow_down_skips_the_next_slots_for_all_processes(database: Database, another: Database) -> None:
    await reserve(database)
    # They do not add up, because they are about the same moment.
    for _ in range(3):
        async with database.write() as tx:
            await tx.quota.slow_down("a", pause=10 * INTERVAL)

    assert await wait(another) == 10
    assert intervals(await reserve(another) - time.monotonic()) == 10


async def test_slow_down_keeps_later_reservations(database: Database) -> None:
    await reserve(database, 20)
    async with database.write() as tx:
        await tx.quota.slow_down("a", pause=INTERVAL)

    assert await wait(database) == 20


async def test_clock_that_was_set_back_delays_nobody(database: Database) -> None:
    await reserve(database)
    await shift(database, timedelta(days=400))

    assert await wait(database) == 0
    first, second = await reserve(database), await reserve(database)

    assert (intervals(first - time.monotonic()), intervals(second - first)) == (0, 1)


async def test_reservation_that_is_rolled_back_takes_no_slot(database: Database) -> None:
    async def fail() -> None:
        async with database.write() as tx:
            await tx.quota.reserve("a", interval=INTERVAL, slots=50)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    assert await wait(database) == 0


async def test_slots_are_stored_in_whole_microseconds(database: Database) -> None:
    """Asyncpg silently truncates a float for a bigint; an integer that is too narrow would overflow."""
    await reserve(database)

    async with database.read() as tx:
        tat_us = await tx.connection.scalar(text("SELECT tat_us FROM quota"))
    assert isinstance(tat_us, int)
    assert intervals(tat_us / 1e6 - time.time()) == 1


async def move_minute(database: Database, minutes: int) -> None:
    """Makes the counted slots older by whole minutes."""
    async with database.write() as tx:
        await tx.connection.execute(text("UPDATE quota SET minute = minute - :minutes"), {"minutes": minutes})


async def used(database: Database) -> float:
    async with database.read() as tx:
        return (await tx.quota.used(["a", "idle"]))["a"]


async def use_two_minutes(database: Database, another: Database) -> tuple[float, float, float, float]:
    """Reserves 1,200 slots, and 60 a minute later; returns the used ones after each step, and two minutes later."""
    short = timedelta(microseconds=1)
    await move_minute(database, 2)
    await reserve(database, 600, interval=short)
    await reserve(another, 600, interval=short)
    async with database.write() as tx:
        await tx.quota.slow_down("a", pause=short)
    first = await used(database)
    await move_minute(database, 1)
    second = await used(another)
    await reserve(database, 60, interval=short)
    third = await used(another)
    await move_minute(database, 2)
    return first, second, third, await used(database)


async def test_used_slots_are_those_of_the_last_minute(database: Database, another: Database) -> None:
    began = time.time() // 60
    found = await use_two_minutes(database, another)
    if began != time.time() // 60:
        # A minute ended in between.
        found = await use_two_minutes(database, another)

    assert (found[0], found[3]) == (1200, 0)
    # Of the minute before, as much counts as this minute still lasts.
    assert 0 < found[1] < 1200
    assert 60 < found[2] < 1260
