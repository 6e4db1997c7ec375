"""The outbox: events are added in the transaction that changes a verification, and get their positions after it.

Numbers that are assigned before the commit would appear out of order, and a reader that remembers the last one would
skip what commits late. So a sequencer assigns positions to committed events, one sequencer at a time: it holds the
lock of the counter's row, and its next statement sees everything that was committed before. Its own positions become
visible before it releases the lock. A reader therefore never sees a position before all smaller ones.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Integer, Select, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.events import Event, EventFilter, EventType
from app.domain.verification import LONG_AGO
from app.storage.column_types import IMPOSSIBLE
from app.storage.rows import RowReader
from app.storage.tables import columns_of, event_counter, verification
from app.storage.tables import event as table

EVENT_COLUMNS = [table.c[field.name] for field in fields(Event)]
"""The columns in the order that `as_event` expects."""

_READER = RowReader(Event, public_id="", type=EventType.UPDATED, client="", at=LONG_AGO)

# Built once: building a statement takes several times as long as running it.
_ADD = table.insert()
_HEAD = select(event_counter.c.position)
_OLDEST = select(func.min(table.c.position)).where(table.c.position.is_not(None))
_NEW = (
    select(table.c.id, func.row_number().over(order_by=table.c.id).label("number"))
    .where(table.c.position.is_(None))
    .order_by(table.c.id)
    .limit(bindparam("at_most", type_=Integer))
    .subquery()
)
_COUNT = select(func.count()).select_from(_NEW).scalar_subquery()
# Locks the row of the counter, and advances it by the number of events that it sees. Without events it locks nothing.
_ADVANCE = (
    update(event_counter)
    .where(select(table.c.id).where(table.c.position.is_(None)).exists())
    .values(position=event_counter.c.position + _COUNT)
    .returning(event_counter.c.position, _COUNT.label("added"))
)
_SEQUENCE = (
    update(table)
    .where(table.c.id == _NEW.c.id)
    .values(position=bindparam("head", type_=table.c.position.type) + _NEW.c.number)
    .returning(*EVENT_COLUMNS)
)
_CREATE_COUNTER = {
    name: dialect.insert(event_counter).values(position=0).on_conflict_do_nothing()
    for name, dialect in (("postgresql", postgresql), ("sqlite", sqlite))
}
_FORGET = (
    update(table)
    .where(table.c.verification_id.in_(bindparam("ids", expanding=True)))
    .values(subject_ref=None, outcome=None, provisional=False, err_code=None)
)


@dataclass(slots=True)
class EventStore:
    """The table of events. `has_new`: this transaction has added some."""

    connection: AsyncConnection
    has_new: bool = False

    async def add_all(self, events: Collection[Event]) -> None:
        """Adds events without positions."""
        if not events:
            return
        rows = [columns_of(event) for event in events]
        for row in rows:
            del row["id"]
        await self.connection.execute(_ADD, rows)
        self.has_new = True

    async def forget(self, verification_ids: Collection[int]) -> None:
        """Removes the reference and the verdict from the events of erased verifications."""
        await self.connection.execute(_FORGET, {"ids": list(verification_ids)})

    async def create_counter(self) -> None:
        """Creates the counter of positions if it is missing."""
        await self.connection.execute(_CREATE_COUNTER[self.connection.dialect.name])

    async def sequence(self, *, limit: int) -> Sequence[Event]:
        """Assigns positions to at most `limit` committed events, in the order of their ids; returns them in order.

        Waits until no other sequencer works. The counter must exist, and the transaction must be READ COMMITTED.
        """
        # A statement of its own: the next one sees all that was committed until the lock was acquired.
        advanced = (await self.connection.execute(_ADVANCE, {"at_most": limit})).one_or_none()
        if advanced is None:
            return []
        # Counted before the wait for the lock: another sequencer may have left fewer events. A gap is harmless.
        parameters = {"head": advanced.position - advanced.added, "at_most": advanced.added}
        rows = await self.connection.execute(_SEQUENCE, parameters)
        return sorted(map(as_event, rows), key=lambda event: event.id)

    async def head(self) -> int:
        """Returns the newest position, 0 before the first."""
        return await self.connection.scalar(_HEAD) or 0

    async def oldest(self) -> int:
        """Returns the oldest position that is kept; without events, the next one."""
        oldest = await self.connection.scalar(_OLDEST)
        return int(oldest) if oldest is not None else await self.head() + 1

    async def search(self, wanted: EventFilter, *, after: int, until: int, limit: int) -> Sequence[Event]:
        """Returns at most `limit` events behind the position `after`, up to and including `until`, in order."""
        statement = _of(wanted).where(table.c.position > after, table.c.position <= until)
        if wanted.types:
            statement = statement.where(table.c.type.in_(wanted.types))
        rows = await self.connection.execute(statement.order_by(table.c.position).limit(limit))
        return [as_event(row) for row in rows]

    async def newest(self, wanted: EventFilter, *, limit: int, examined: int) -> Sequence[Event]:
        """Returns the newest events with a position, newest first; by type among the newest `examined` of the others.

        So a rare type costs no more than that.
        """
        statement = _of(wanted).where(table.c.position.is_not(None)).order_by(table.c.position.desc())
        if wanted.types:
            newest = statement.limit(examined).subquery()
            statement = select(newest).where(newest.c.type.in_(wanted.types)).order_by(newest.c.position.desc())
        return [as_event(row) for row in await self.connection.execute(statement.limit(limit))]

    async def of_verification(self, verification_id: int, *, limit: int) -> Sequence[Event]:
        """Returns the newest events of a verification, oldest first."""
        newest = (
            select(*EVENT_COLUMNS)
            .where(table.c.verification_id == verification_id)
            .order_by(table.c.id.desc())
            .limit(limit)
        )
        return [as_event(row) for row in await self.connection.execute(newest)][::-1]

    async def remove_before(self, at: datetime, *, limit: int) -> int:
        """Removes the events before an instant, at most `limit` of the first positions; returns how many."""
        first = select(table.c.position, table.c.at).where(table.c.position.is_not(None)).order_by(table.c.position)
        rows = (await self.connection.execute(first.limit(limit))).all()
        kept_from = next(
            (place for place, row in enumerate(rows) if row.at is not IMPOSSIBLE and row.at >= at), len(rows)
        )
        if kept_from:
            await self.connection.execute(delete(table).where(table.c.position <= rows[kept_from - 1].position))
        return kept_from


def _of(wanted: EventFilter) -> Select[Any]:
    """Returns the statement for events of a client and of a token."""
    statement = select(*EVENT_COLUMNS)
    if wanted.client is not None:
        statement = statement.where(table.c.client == wanted.client)
    if wanted.biz_token is not None:
        ids = select(verification.c.id).where(verification.c.biz_token == wanted.biz_token)
        statement = statement.where(table.c.verification_id.in_(ids))
    return statement


def as_event(row: Sequence[Any]) -> Event:
    """Converts a row of `EVENT_COLUMNS`. Malformed values are replaced, so the event can be reported."""
    event, _ = _READER.read(row)
    return event if event.details is None or _is_object(event.details) else replace(event, details=None)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
