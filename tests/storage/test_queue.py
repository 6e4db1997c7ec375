"""The row is the queue: a due row goes to one worker at a time, the longest due first, and is never lost."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from app.domain import lifecycle
from app.domain.turns import Turn, in_order
from app.domain.verification import Priority, Verification
from app.storage.database import Database
from app.storage.queue import Due
from tests.storage import rows
from tests.storage.rows import find
from tests.support.databases import opened
from tests.support.rows import NOW, lock_row

LEASE = timedelta(seconds=60)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
ROW = Verification(client="default", biz_token="", rule_id="1", due_at=NOW, deadline_at=NOW + 70 * HOUR)


DUE = Due(account="default", now=NOW, last_deadline=NOW + SECOND)
ALL = [[Turn(priority, "default")] for priority in Priority]


async def add(database: Database, dues: Collection[datetime | None]) -> Sequence[Verification]:
    """Adds one row for each instant, named by its place."""
    return await rows.add(database, *(replace(ROW, biz_token=str(place), due_at=due) for place, due in enumerate(dues)))


async def claim(
    database: Database, due: Due = DUE, *, now: datetime = NOW, limit: int = 10, number: int = 1
) -> Sequence[Verification]:
    async with database.write() as tx:
        turns = in_order(await tx.queue.turns(due.account, now), number)
        return await tx.queue.claim(replace(due, now=now), turns, lease=LEASE, limit=limit)


def names(claimed: Collection[Verification]) -> set[str]:
    return {row.biz_token for row in claimed}


async def test_claim_takes_the_longest_due_rows_up_to_its_limit(database: Database) -> None:
    await add(database, [NOW - n * SECOND for n in (1, 5, 3, 4, 2)])

    batches = [names(await claim(database, limit=2)) for _ in range(4)]

    assert batches == [{"1", "3"}, {"2", "4"}, {"0"}, set()]


async def test_only_due_rows_are_claimed(database: Database) -> None:
    await add(database, [NOW, NOW + SECOND / 1000, None])

    assert names(await claim(database)) == {"0"}


async def test_claim_is_a_numbered_lease(database: Database) -> None:
    (row,) = await add(database, [NOW - SECOND])

    claimed = await claim(database)

    assert claimed == [await find(database, "0")]
    (taken,) = claimed
    assert (taken.id, taken.due_at, taken.claim, taken.is_leased) == (row.id, NOW + LEASE, 1, True)


async def test_claim_that_is_rolled_back_takes_nothing(database: Database) -> None:
    await add(database, [NOW])

    async def fail() -> None:
        async with database.write() as tx:
            assert await tx.queue.claim(DUE, ALL, lease=LEASE, limit=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    assert names(await claim(database)) == {"0"}


async def test_row_goes_to_one_of_many_concurrent_workers(database: Database, another: Database) -> None:
    await add(database, [NOW - n * SECOND for n in range(200)])

    async def work(mine: Database) -> list[str]:
        taken: list[str] = []
        while batch := await claim(mine, limit=7):
            assert len(batch) <= 7
            taken += [row.biz_token for row in batch]
        return taken

    hauls = await asyncio.gather(*(work(mine) for mine in [database, another] * 8))

    taken = [name for haul in hauls for name in haul]
    assert sorted(taken, key=int) == [str(number) for number in range(200)]


async def test_claim_skips_locked_rows(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        await add(database, [NOW - SECOND, NOW])

        async with database.write() as tx:
            await lock_row(tx, "0")
            assert names(await claim(database)) == {"1"}

        assert names(await claim(database)) == {"0"}


async def test_row_is_due_again_when_its_lease_expires(database: Database) -> None:
    await add(database, [NOW])
    (first,) = await claim(database)

    assert await claim(database, now=NOW + LEASE - SECOND) == []
    (second,) = await claim(database, now=NOW + LEASE)

    assert (first.claim, second.claim) == (1, 2)


async def renew(database: Database, held: Collection[Verification], *, until: datetime) -> None:
    async with database.write() as tx:
        await tx.queue.renew(held, until=until)


async def test_held_lease_can_be_renewed(database: Database) -> None:
    await add(database, [NOW, NOW])
    held = await claim(database)

    await renew(database, held, until=NOW + 2 * LEASE)

    assert await claim(database, now=NOW + LEASE) == []


async def test_renewal_and_recording_do_not_block_each_other(database: Database) -> None:
    await add(database, [NOW, NOW])
    first, other = held = sorted(await claim(database), key=lambda row: row.id)
    # A scan of the table now meets the first row last, because its newest version is the last one.
    await renew(database, [first], until=NOW + LEASE)

    async def record() -> None:
        async with database.write() as tx:
            await tx.verifications.lock_by_id([first.id, other.id])

    async def renew_both() -> None:
        async with database.write() as tx:
            if not database.is_embedded:
                # The planner may choose such a scan for many rows.
                for scan in ("indexscan", "bitmapscan"):
                    await tx.connection.exec_driver_sql(f"SET LOCAL enable_{scan} TO off")
            await tx.queue.renew(held, until=NOW + 2 * LEASE)

    async with database.write() as tx:
        await tx.verifications.lock_by_id([first.id])
        recording = asyncio.create_task(record())
        await asyncio.sleep(0.3)
        renewing = asyncio.create_task(renew_both())
        await asyncio.sleep(0.3)
    await asyncio.gather(recording, renewing)

    assert await claim(database, now=NOW + LEASE) == []


async def test_outdated_or_finished_claim_cannot_be_renewed(database: Database) -> None:
    await add(database, [NOW])
    stale = await claim(database)
    newer = await claim(database, now=NOW + LEASE)

    await renew(database, stale, until=NOW + 9 * LEASE)
    assert [await find(database, "0")] == newer

    async with database.write() as tx:
        await tx.queue.hand_back(newer, now=NOW)
    await renew(database, newer, until=NOW + 9 * LEASE)
    assert (await find(database, "0")).due_at == NOW


async def test_claim_that_is_handed_back_is_due_at_once(database: Database) -> None:
    await add(database, [NOW, NOW])
    one, other = await claim(database)

    async with database.write() as tx:
        await tx.queue.hand_back([one], now=NOW + SECOND)

    row = await find(database, one.biz_token)
    assert (row.due_at, row.is_leased) == (NOW + SECOND, False)
    assert names(await claim(database, now=NOW + SECOND)) == {one.biz_token}
    assert await find(database, other.biz_token) == other


async def test_outdated_claim_cannot_be_handed_back(database: Database) -> None:
    await add(database, [NOW])
    stale = await claim(database)
    newer = await claim(database, now=NOW + LEASE)

    async with database.write() as tx:
        await tx.queue.hand_back(stale, now=NOW + LEASE)

    assert [await find(database, "0")] == newer


async def test_callback_during_a_claim_is_kept_until_the_next_claim(database: Database) -> None:
    await add(database, [NOW])
    await claim(database)

    async with database.write() as tx:
        row = await lock_row(tx, "0")
        assert row is not None
        await tx.verifications.save(row, lifecycle.called_back(row, None, NOW + SECOND), NOW)
    woken = await find(database, "0")
    (again,) = await claim(database, now=NOW + LEASE)

    assert (woken.wake_requested, woken.due_at) == (True, NOW + LEASE)
    assert not again.wake_requested


async def test_worker_with_a_late_clock_takes_no_lease_of_others(database: Database) -> None:
    await add(database, [NOW])
    await claim(database)

    assert await claim(database, now=NOW - timedelta(days=1)) == []


async def test_fresh_rows_come_before_retries_and_these_before_polls(database: Database) -> None:
    await rows.add(
        database,
        *(
            replace(ROW, biz_token=f"{priority.name} {age}", priority=priority, due_at=NOW - age * SECOND)
            for age in (1, 2)
            for priority in reversed(Priority)
        ),
    )

    batches = [[row.biz_token for row in await claim(database, limit=3)] for _ in range(2)]

    assert [sorted(batch) for batch in batches] == [["FRESH 1", "FRESH 2", "RETRY 2"], ["POLL 1", "POLL 2", "RETRY 1"]]
    assert batches[0][-1] == "RETRY 2"
    assert batches[1][0] == "RETRY 1"


async def test_each_client_with_due_rows_has_a_turn(database: Database) -> None:
    later = replace(ROW, due_at=NOW + SECOND)
    await rows.add(
        database,
        *(replace(ROW, biz_token=f"a{number}", client="a") for number in range(3)),
        replace(ROW, biz_token="b", client="b", priority=Priority.POLL),
        replace(ROW, biz_token="b later", client="b", due_at=NOW + SECOND),
        replace(later, biz_token="c later", client="c"),
        replace(ROW, biz_token="d of a bank", client="d", account="bank"),
        replace(ROW, biz_token="e done", client="e", due_at=None),
    )

    async with database.read() as tx:
        found = [await tx.queue.turns("default", at) for at in (NOW - SECOND, NOW, NOW + SECOND)]

    now = {Turn(Priority.FRESH, "a"), Turn(Priority.POLL, "b")}
    assert [set(turns) for turns in found] == [set(), now, now | {Turn(Priority.FRESH, "b"), Turn(Priority.FRESH, "c")}]
    assert [len(turns) for turns in found] == [0, 2, 4]


async def test_rows_of_all_clients_are_claimed_in_turns(database: Database) -> None:
    await rows.add(
        database,
        *(replace(ROW, biz_token=f"a{age}", client="a", due_at=NOW - age * SECOND) for age in range(20)),
        *(replace(ROW, biz_token=f"b{age}", client="b", due_at=NOW - age * SECOND) for age in range(2)),
        replace(ROW, biz_token="c", client="c"),
    )

    assert names(await claim(database, limit=6)) == {"a19", "b1", "c", "a18", "b0", "a17"}
    # The others get the turns of a client that has nothing left.
    assert names(await claim(database, limit=3)) == {"a16", "a15", "a14"}


async def test_flood_of_one_client_delays_another_by_one_claim(database: Database) -> None:
    flood = [replace(ROW, biz_token=f"a{n}", client="a", due_at=NOW - HOUR) for n in range(500)]
    await rows.add(database, *flood, replace(ROW, biz_token="b", client="b"))

    claimed = [names(await claim(database, limit=1, number=number)) for number in (1, 2)]

    assert {"b"} in claimed


async def test_each_account_has_its_own_queue(database: Database) -> None:
    await rows.add(database, *(replace(ROW, biz_token=name, account=name) for name in ("default", "bank")))

    assert names(await claim(database, replace(DUE, account="bank"))) == {"bank"}
    assert names(await claim(database)) == {"default"}


@pytest.mark.parametrize(
    ("due", "claimed"),
    [
        pytest.param(replace(DUE, rule_id="2"), {"2"}, id="one rule only"),
        pytest.param(replace(DUE, paused_rule_ids=["2", "3"]), {"1", "3 last"}, id="some rules are paused"),
        pytest.param(replace(DUE, is_paused=True), {"3 last"}, id="the account is paused"),
    ],
)
async def test_pause_allows_only_rows_on_their_last_try(database: Database, due: Due, claimed: set[str]) -> None:
    ordinary = [replace(ROW, biz_token=rule_id, rule_id=rule_id) for rule_id in ("1", "2", "3")]
    on_last_try = replace(ROW, biz_token="3 last", rule_id="3", deadline_at=NOW + SECOND)
    await rows.add(database, *ordinary, on_last_try)

    assert names(await claim(database, due)) == claimed


async def test_row_handed_back_for_another_account_is_due_there(database: Database) -> None:
    await add(database, [NOW])
    held = await claim(database)

    async with database.write() as tx:
        await tx.queue.hand_back(held, now=NOW, account="bank")

    assert await claim(database) == []
    assert names(await claim(database, replace(DUE, account="bank"))) == {"0"}
