"""The outbox: events are committed with their changes, and their positions appear in order and without gaps."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from app.domain import lifecycle
from app.domain.detection import Outcome
from app.domain.events import Event, EventFilter, EventType
from app.domain.verification import State, Verification
from app.storage.database import Database
from tests.storage.rows import add, find
from tests.support.rows import MINIMAL, NOW

RETRIEVED = replace(
    MINIMAL, state=State.RETRIEVED, outcome=Outcome.PASSED, err_code=0, subject_ref="loan-4711", revision=1
)
SECOND = timedelta(seconds=1)


async def change(database: Database, before: Verification, after: Verification) -> Verification:
    """Saves a change and returns the row as it is stored."""
    async with database.write() as tx:
        await tx.verifications.save(before, after, NOW)
    return await find(database, before.biz_token)


async def sequence(database: Database, *, limit: int = 500) -> list[Event]:
    async with database.write() as tx:
        await tx.events.create_counter()
        return list(await tx.events.sequence(limit=limit))


async def read(
    database: Database, wanted: EventFilter | None = None, *, after: int = 0, limit: int = 500
) -> list[Event]:
    async with database.read() as tx:
        until = await tx.events.head()
        return list(await tx.events.search(wanted or EventFilter(), after=after, until=until, limit=limit))


def event(number: int, **values: object) -> Event:
    known: dict[str, Any] = {
        "public_id": f"evt_{number}",
        "type": EventType.TEST,
        "client": "shop",
        "at": NOW,
        "details": "{}",
    }
    return Event(**known | values)


async def test_change_and_its_event_are_committed_together(database: Database) -> None:
    (new,) = await add(database, MINIMAL)
    retrieved = await change(database, new, replace(RETRIEVED, id=new.id))
    with suppress(ZeroDivisionError):
        async with database.write() as tx:
            await tx.verifications.save(retrieved, replace(retrieved, revision=2), NOW)
            raise ZeroDivisionError
    updated = await change(database, retrieved, replace(retrieved, provisional=True))
    await change(database, updated, replace(updated, attempts=9))

    first, second = await sequence(database)

    assert (retrieved.event_count, updated.event_count) == (1, 2)
    assert first == Event(
        id=first.id,
        public_id=first.public_id,
        position=1,
        type=EventType.RETRIEVED,
        client="default",
        at=NOW,
        verification_id=new.id,
        biz_token="minimal",
        rule_id="1",
        subject_ref="loan-4711",
        state=State.RETRIEVED,
        outcome=Outcome.PASSED,
        err_code=0,
        revision=1,
    )
    assert (second.type, second.position, second.revision) == (EventType.UPDATED, 2, 2)
    assert await read(database) == [first, second]


async def test_erasure_removes_the_reference_and_the_verdict_from_earlier_events(database: Database) -> None:
    (new, bystander) = await add(database, MINIMAL, replace(MINIMAL, biz_token="other"))
    retrieved = await change(database, new, replace(RETRIEVED, id=new.id))
    await change(database, bystander, replace(RETRIEVED, id=bystander.id, biz_token="other"))
    before = await sequence(database)

    erased = await change(database, retrieved, lifecycle.erased(retrieved, NOW))
    (last,) = await sequence(database)

    assert await read(database) == [
        replace(before[0], subject_ref=None, outcome=None, err_code=None),
        before[1],
        last,
    ]
    assert (last.type, last.subject_ref, last.outcome, last.revision) == (EventType.ERASED, None, None, 2)
    assert erased.event_count == 2


async def test_positions_follow_the_ids_and_continue(database: Database) -> None:
    assert await sequence(database) == []
    async with database.write() as tx:
        await tx.events.add_all([event(number) for number in range(3)])

    batches = [await sequence(database, limit=2) for _ in range(3)]

    assert [[(one.public_id, one.position) for one in batch] for batch in batches] == [
        [("evt_0", 1), ("evt_1", 2)],
        [("evt_2", 3)],
        [],
    ]
    async with database.read() as tx:
        assert (await tx.events.oldest(), await tx.events.head()) == (1, 3)


async def test_concurrent_sequencers_assign_each_position_once(database: Database, another: Database) -> None:
    async with database.write() as tx:
        await tx.events.add_all([event(number) for number in range(40)])

    batches = await asyncio.gather(*(sequence(each, limit=4) for each in [database, another] * 5))

    assigned = sorted(one.position or 0 for batch in batches for one in batch)
    assert len(assigned) == len(set(assigned)) == 40
    assert [one.position for one in await read(database)] == assigned
    # In the order of the ids.
    assert [one.public_id for one in await read(database)] == [f"evt_{number}" for number in range(40)]


async def test_rolled_back_positions_are_assigned_again(database: Database) -> None:
    async with database.write() as tx:
        await tx.events.add_all([event(1)])
    with suppress(ZeroDivisionError):
        async with database.write() as tx:
            await tx.events.create_counter()
            await tx.events.sequence(limit=1)
            raise ZeroDivisionError

    assert [one.position for one in await sequence(database)] == [1]


async def test_filter_selects_events_that_match_all_of_it(database: Database) -> None:
    rows = await add(database, MINIMAL, replace(MINIMAL, client="bank"), replace(MINIMAL, biz_token="other"))
    for row in rows:
        await change(database, row, replace(row, state=State.FAILED))
    async with database.write() as tx:
        await tx.events.add_all([event(4)])
    await sequence(database)

    for wanted, positions in (
        (EventFilter(), [1, 2, 3, 4]),
        (EventFilter(client="default"), [1, 3]),
        (EventFilter(client="nobody"), []),
        (EventFilter(types=(EventType.TEST, EventType.EXPIRED)), [4]),
        (EventFilter(types=(EventType.FAILED,), client="bank"), [2]),
        (EventFilter(biz_token="minimal"), [1, 2]),
        (EventFilter(biz_token="minimal", client="bank"), [2]),
        (EventFilter(biz_token="unknown"), []),
    ):
        assert [one.position for one in await read(database, wanted)] == positions
    assert [one.position for one in await read(database, after=1, limit=2)] == [2, 3]


async def test_old_events_are_removed_from_the_first_position_on(database: Database) -> None:
    ages = (9, 8, 2, 7)
    async with database.write() as tx:
        await tx.events.add_all([event(number, at=NOW - age * SECOND) for number, age in enumerate(ages)])
    await sequence(database)

    async with database.write() as tx:
        removed = [await tx.events.remove_before(NOW - 5 * SECOND, limit=1) for _ in range(3)]
        # The fourth one is old, but it follows a newer one.
        assert (removed, await tx.events.oldest()) == ([1, 1, 0], 3)
        assert await tx.events.remove_before(NOW, limit=9) == 2
        assert (await tx.events.oldest(), await tx.events.head()) == (5, 4)
