"""Gives events their positions, announces approaching deadlines, and removes old events. For workers."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

import structlog

from app.domain import lifecycle
from app.domain.events import EVENT_RETENTION, EXPIRY_NOTICE, Event
from app.services.clock import ClockService
from app.storage.database import Database, Transaction
from app.storage.wakeups import POSITIONS, Wakeups, topic_of

PositionedHook = Callable[[Transaction, Sequence[Event]], Awaitable[Collection[str]]]
"""Called with the events that have new positions, in order, within the transaction that assigns them.

Returns topics to wake after the commit.
"""

_BATCH = 500
# Under load, events that are committed within this time share a transaction.
_COLLECT_SECONDS = 0.1

log = structlog.get_logger()


@dataclass(kw_only=True, repr=False, eq=False)
class OutboxService:
    """Works on the outbox in the background. Any number of workers may do so at the same time."""

    database: Database
    wakeups: Wakeups
    clocks: ClockService
    on_positioned: Sequence[PositionedHook] = ()
    _has_counter: bool = field(init=False, default=False)
    _ended_at: float = field(init=False, default=-_COLLECT_SECONDS)

    async def sequence(self) -> None:
        """Assigns positions to all committed events, in short transactions. Nothing is written if there are none."""
        await asyncio.sleep(self._ended_at + _COLLECT_SECONDS - time.monotonic())
        while await self._sequence_batch() == _BATCH:
            pass
        self._ended_at = time.monotonic()

    async def announce_deadlines(self) -> None:
        """Adds an event for each pending verification that expires within a day, once in its life."""
        while self.clocks.is_trusted and await self._announce_batch() == _BATCH:
            pass

    async def remove_old(self) -> None:
        """Removes events after their retention, oldest position first."""
        while self.clocks.is_trusted:
            async with self.database.write() as tx:
                removed = await tx.events.remove_before(self.clocks.clock() - EVENT_RETENTION, limit=_BATCH)
            if removed < _BATCH:
                return

    async def _sequence_batch(self) -> int:
        async with self.database.write() as tx:
            if not self._has_counter:
                await tx.events.create_counter()
            events = await tx.events.sequence(limit=_BATCH)
            topics = {POSITIONS, *(topic_of(event.client) for event in events)} if events else set[str]()
            for hook in self.on_positioned if events else ():
                topics |= set(await hook(tx, events))
        self._has_counter = True
        for topic in topics:
            self.wakeups.send(topic)
        return len(events)

    async def _announce_batch(self) -> int:
        now = self.clocks.clock()
        async with self.database.write() as tx:
            found = await tx.verifications.lock_expiring(deadline_before=now + EXPIRY_NOTICE, limit=_BATCH)
            await tx.verifications.save_all([(known, lifecycle.expiry_announced(known)) for known in found], now)
        if found:
            log.info("expiring", found=len(found))
        return len(found)
