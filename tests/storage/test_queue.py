"""The row is the queue: what is due goes to one worker at a time, the longest due first, and is never lost."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from app.domain import lifecycle
from app.domain.verification import Priority, Verification
from app.storage.database import Database, DatabaseSettings
from app.storage.queue import Due, Queue
from app.storage.verifications import VerificationStore

QUEUE = Queue()
STORE = VerificationStore()
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LEASE = timedelta(seconds=60)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


ROW = Verification(client="default", biz_token="", rule_id="1", due_at=NOW, deadline_at=NOW + 70 * HOUR)


async def add(database: Database, dues: Collection[datetime | None]) -> Sequence[Verification]:
    """One row for each instant, named by its place."""
    return await add_rows(database, [replace(ROW, biz_token=str(place), due_at=due) for place, due in enumerate(dues)])


async def add_rows(database: Database, rows: Collection[Verification]) -> Sequence[Verification]:
    async with database.write() as tx:
        added = [await STORE.add(tx, row) for row in rows]
    return [row for row in added if row]


DUE = Due(account="default", now=NOW, last_try_before=NOW + SECOND)


async def claim(database: Database, due: Due = DUE, *, now: datetime = NOW, limit: int = 10) -> Sequence[Verification]:
    async with database.write() as tx:
        return await QUEUE.claim(tx, replace(due, now=now), lease=LEASE, limit=limit)


async def find(database: Database, name: str = "0") -> Verification:
    async with database.read() as tx:
        row = await STORE.find(tx, name)
    assert row is not None
    return row


def names(rows: Collection[Verification]) -> set[str]:
    return {row.biz_token for row in rows}


@pytest.fixture
async def another(database_url: str) -> AsyncIterator[Database]:
    """The same database, seen from another process."""
    database = Database(DatabaseSettings(database_url=SecretStr(database_url)))
    yield database
    await database.aclose()


async def test_a_claim_takes_what_has_been_due_longest_and_no_more_than_its_limit(database: Database) -> None:
    await add(database, [NOW - n * SECOND for n in (1, 5, 3, 4, 2)])

    batches = [names(await claim(database, limit=2)) for _ in range(4)]

    assert batches == [{"1", "3"}, {"2", "4"}, {"0"}, set()]


async def test_only_what_is_due_is_claimed(database: Database) -> None:
    await add(database, [NOW, NOW + SECOND / 1000, None])

    assert names(await claim(database)) == {"0"}


async def test_a_claim_is_a_lease_with_a_number(database: Database) -> None:
    (row,) = await add(database, [NOW - SECOND])

    claimed = await claim(database)

    assert claimed == [await find(database)]
    (taken,) = claimed
    assert (taken.id, taken.due_at, taken.claim, taken.leased) == (row.id, NOW + LEASE, 1, True)


async def test_a_claim_that_is_rolled_back_took_nothing(database: Database) -> None:
    await add(database, [NOW])

    async def fail() -> None:
        async with database.write() as tx:
            assert await QUEUE.claim(tx, DUE, lease=LEASE, limit=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    assert names(await claim(database)) == {"0"}


async def test_no_row_goes_to_two_of_many_concurrent_workers(database: Database, another: Database) -> None:
    await add(database, [NOW - n * SECOND for n in range(200)])

    async def work(mine: Database) -> list[str]:
        taken: list[str] = []
        while rows := await claim(mine, limit=7):
            assert len(rows) <= 7
            taken += [row.biz_token for row in rows]
        return taken

    hauls = await asyncio.gather(*(work(mine) for mine in [database, another] * 8))

    taken = [name for haul in hauls for name in haul]
    assert sorted(taken, key=int) == [str(number) for number in range(200)]


async def test_a_claim_does_not_wait_for_rows_that_somebody_has_locked(postgres_url: str) -> None:
    database = Database(DatabaseSettings(database_url=SecretStr(postgres_url)))
    await add(database, [NOW - SECOND, NOW])

    async with database.write() as tx:
        await STORE.lock(tx, "0")
        assert names(await claim(database)) == {"1"}

    assert names(await claim(database)) == {"0"}
    await database.aclose()


async def test_a_row_comes_due_again_when_its_lease_is_over(database: Database) -> None:
    await add(database, [NOW])
    (first,) = await claim(database)

    assert await claim(database, now=NOW + LEASE - SECOND) == []
    (second,) = await claim(database, now=NOW + LEASE)

    assert (first.claim, second.claim) == (1, 2)


async def renew(database: Database, rows: Collection[Verification], *, until: datetime) -> None:
    async with database.write() as tx:
        await QUEUE.renew(tx, rows, until=until)


async def test_a_lease_can_be_renewed_while_it_is_held(database: Database) -> None:
    await add(database, [NOW, NOW])
    held = await claim(database)

    await renew(database, held, until=NOW + 2 * LEASE)

    assert await claim(database, now=NOW + LEASE) == []


async def test_a_claim_that_is_outdated_or_over_cannot_be_renewed(database: Database) -> None:
    await add(database, [NOW])
    stale = await claim(database)
    newer = await claim(database, now=NOW + LEASE)

    await renew(database, stale, until=NOW + 9 * LEASE)
    assert [await find(database)] == newer

    async with database.write() as tx:
        await QUEUE.hand_back(tx, newer, now=NOW)
    await renew(database, newer, until=NOW + 9 * LEASE)
    assert (await find(database)).due_at == NOW


async def test_a_claim_that_is_handed_back_is_due_at_once(database: Database) -> None:
    await add(database, [NOW, NOW])
    one, other = await claim(database)

    async with database.write() as tx:
        await QUEUE.hand_back(tx, [one], now=NOW + SECOND)

    row = await find(database, one.biz_token)
    assert (row.due_at, row.leased) == (NOW + SECOND, False)
    assert names(await claim(database, now=NOW + SECOND)) == {one.biz_token}
    assert await find(database, other.biz_token) == other


async def test_an_outdated_claim_cannot_be_handed_back(database: Database) -> None:
    await add(database, [NOW])
    stale = await claim(database)
    newer = await claim(database, now=NOW + LEASE)

    async with database.write() as tx:
        await QUEUE.hand_back(tx, stale, now=NOW + LEASE)

    assert [await find(database)] == newer


async def test_a_callback_during_a_claim_is_remembered_until_the_next_one(database: Database) -> None:
    await add(database, [NOW])
    await claim(database)

    async with database.write() as tx:
        row = await STORE.lock(tx, "0")
        assert row is not None
        await STORE.save(tx, row, lifecycle.woken(row, NOW + SECOND))
    woken = await find(database)
    (again,) = await claim(database, now=NOW + LEASE)

    assert (woken.woken, woken.due_at) == (True, NOW + LEASE)
    assert not again.woken


async def test_a_worker_whose_clock_is_behind_leaves_the_leases_of_others_alone(database: Database) -> None:
    await add(database, [NOW])
    await claim(database)

    assert await claim(database, now=NOW - timedelta(days=1)) == []


async def test_what_somebody_waits_for_goes_before_retries_and_these_before_polls(database: Database) -> None:
    await add_rows(
        database,
        [
            replace(ROW, biz_token=f"{priority.name} {age}", priority=priority, due_at=NOW - age * SECOND)
            for age in (1, 2)
            for priority in reversed(Priority)
        ],
    )

    batches = [[row.biz_token for row in await claim(database, limit=3)] for _ in range(2)]

    assert [sorted(batch) for batch in batches] == [["FRESH 1", "FRESH 2", "RETRY 2"], ["POLL 1", "POLL 2", "RETRY 1"]]
    assert batches[0][-1] == "RETRY 2"
    assert batches[1][0] == "RETRY 1"


async def test_each_account_has_a_queue_of_its_own(database: Database) -> None:
    await add_rows(database, [replace(ROW, biz_token=name, account=name) for name in ("default", "bank")])

    assert names(await claim(database, replace(DUE, account="bank"))) == {"bank"}
    assert names(await claim(database)) == {"default"}


@pytest.mark.parametrize(
    ("due", "claimed"),
    [
        pytest.param(replace(DUE, rule_id="2"), {"2"}, id="one rule only"),
        pytest.param(replace(DUE, closed_rule_ids=["2", "3"]), {"1", "3 last"}, id="some rules are closed"),
        pytest.param(replace(DUE, is_closed=True), {"3 last"}, id="the account is closed"),
    ],
)
async def test_what_is_closed_gives_away_only_what_has_its_last_try(
    database: Database, due: Due, claimed: set[str]
) -> None:
    rows = [replace(ROW, biz_token=rule_id, rule_id=rule_id) for rule_id in ("1", "2", "3")]
    await add_rows(database, [*rows, replace(ROW, biz_token="3 last", rule_id="3", deadline_at=NOW + SECOND)])

    assert names(await claim(database, due)) == claimed


async def test_what_is_handed_back_for_another_account_is_due_there(database: Database) -> None:
    await add(database, [NOW])
    held = await claim(database)

    async with database.write() as tx:
        await QUEUE.hand_back(tx, held, now=NOW, account="bank")

    assert await claim(database) == []
    assert names(await claim(database, replace(DUE, account="bank"))) == {"0"}
