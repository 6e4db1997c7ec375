"""The outbox in the background: positions, approaching deadlines, and the end of old events."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.config import Settings
from app.domain.events import EVENT_RETENTION, Event, EventFilter, EventType
from app.domain.verification import State
from app.factory import Services
from app.services.outbox import OutboxService
from app.storage.database import Transaction
from app.storage.wakeups import EVENTS, POSITIONS, topic_of
from tests.support.clocks import FixedClock
from tests.support.rows import MINIMAL
from tests.support.service import Running, running

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


async def all_events(services: Services) -> Sequence[Event]:
    async with services.database.read() as tx:
        return await tx.events.search(EventFilter(), after=0, until=10**9, limit=10_000)


async def add_events(services: Services, count: int, at: datetime = NOW, client: str = "shop") -> None:
    async with services.database.write() as tx:
        await tx.events.add_all(
            [
                Event(public_id=f"evt_{number}", type=EventType.TEST, client=client, at=at, details="{}")
                for number in range(count)
            ]
        )


async def test_positions_are_assigned_in_batches_with_their_hooks(idle_service: Running) -> None:
    services = idle_service.services
    batches: list[list[int | None]] = []

    async def note(tx: Transaction, events: Sequence[Event]) -> Sequence[str]:
        assert [one.id for one in await tx.events.search(EventFilter(), after=0, until=10**9, limit=1)]
        batches.append([one.position for one in events])
        return ["noted"]

    outbox = OutboxService(
        database=services.database, wakeups=services.wakeups, clocks=services.clocks, on_positioned=[note]
    )
    with ExitStack() as stack:
        topics = (EVENTS, POSITIONS, topic_of("shop"), topic_of("bank"), "noted")
        wakes = [stack.enter_context(services.wakeups.subscribed(topic)) for topic in topics]
        sent = []
        await outbox.sequence()
        sent.append([wake.is_set() for wake in wakes])
        await add_events(services, 501)
        sent.append([wake.is_set() for wake in wakes])
        await outbox.sequence()
        sent.append([wake.is_set() for wake in wakes])

    assert sent == [[False] * 5, [True, False, False, False, False], [True, True, True, False, True]]
    assert batches == [list(range(1, 501)), [501]]
    assert [one.position for one in await all_events(services)] == list(range(1, 502))


async def test_failed_hook_leaves_the_events_for_the_next_run(idle_service: Running) -> None:
    services = idle_service.services

    async def fail(_: Transaction, __: Sequence[Event]) -> Sequence[str]:
        raise ZeroDivisionError

    await add_events(services, 1)
    failing = OutboxService(
        database=services.database, wakeups=services.wakeups, clocks=services.clocks, on_positioned=[fail]
    )
    with pytest.raises(ZeroDivisionError):
        await failing.sequence()
    assert await all_events(services) == []

    await services.outbox.sequence()

    assert [one.position for one in await all_events(services)] == [1]


async def test_deadline_is_announced_once_a_day_before(settings: Settings) -> None:
    clock = FixedClock(NOW)
    async with running(settings, with_worker=False, clock=clock) as service:
        services = service.services
        deadlines = {"later": 25, "soon": 24, "retrieved": 1, "over": -1}
        async with services.database.write() as tx:
            await tx.verifications.add_all(
                [
                    replace(
                        MINIMAL,
                        biz_token=name,
                        deadline_at=NOW + hours * HOUR,
                        state=State.RETRIEVED if name == "retrieved" else State.PENDING,
                    )
                    for name, hours in deadlines.items()
                ]
            )
        for minutes in (1, 0, 59):
            clock.now += timedelta(minutes=minutes)
            await services.outbox.announce_deadlines()
        await services.outbox.sequence()
        first = await all_events(services)
        clock.now += HOUR
        await services.outbox.announce_deadlines()
        await services.outbox.sequence()
        (second,) = (await all_events(services))[2:]

    assert sorted((one.type, one.biz_token, one.state, one.revision) for one in first) == [
        (EventType.EXPIRING, "over", State.PENDING, 1),
        (EventType.EXPIRING, "soon", State.PENDING, 1),
    ]
    assert (second.type, second.biz_token) == (EventType.EXPIRING, "later")


async def test_events_are_removed_after_thirty_days(idle_service: Running) -> None:
    services = idle_service.services
    await add_events(services, 501, NOW - EVENT_RETENTION - HOUR)
    await add_events(services, 1)
    await services.outbox.sequence()

    await services.outbox.remove_old()

    assert [one.position for one in await all_events(services)] == [502]


async def test_nothing_is_announced_or_removed_while_the_clock_is_in_doubt(idle_service: Running) -> None:
    services = idle_service.services
    await add_events(services, 1, NOW - EVENT_RETENTION - HOUR)
    async with services.database.write() as tx:
        await tx.verifications.add_all([replace(MINIMAL, deadline_at=NOW)])
    services.clocks.is_trusted = False

    await services.outbox.announce_deadlines()
    await services.outbox.remove_old()
    await services.outbox.sequence()

    assert [one.position for one in await all_events(services)] == [1]
