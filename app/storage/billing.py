"""The progress of reading Tencent's bills: one row per day and rule, claimed like a verification."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import ColumnElement, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.tables import reconciliation as table


@dataclass(frozen=True, slots=True)
class BillingStore:
    """The table of reconciliations."""

    connection: AsyncConnection

    async def claim(self, rule_id: str, day: date, *, now: datetime, lease: timedelta) -> int | None:
        """Claims a bill for the lease and returns the cursor of its next page.

        Returns None if the bill is complete or another worker has claimed it.
        """
        insert = postgresql.insert if self.connection.dialect.name == "postgresql" else sqlite.insert
        new = insert(table).values(rule_id=rule_id, day=day, cursor=0, due_at=now)
        await self.connection.execute(new.on_conflict_do_nothing())
        # A claim further ahead than a lease is one of a wrong clock.
        is_due = (table.c.due_at <= now) | (table.c.due_at > now + lease)
        statement = update(table).where(_is(rule_id, day), is_due).values(due_at=now + lease)
        cursor: int | None = await self.connection.scalar(statement.returning(table.c.cursor))
        return cursor

    async def save_progress(self, rule_id: str, day: date, *, cursor: int, due_at: datetime | None) -> None:
        """Stores the cursor of the next page and when to read it; None if the bill is complete."""
        await self.connection.execute(update(table).where(_is(rule_id, day)).values(cursor=cursor, due_at=due_at))


def _is(rule_id: str, day: date) -> ColumnElement[bool]:
    return (table.c.rule_id == rule_id) & (table.c.day == day)
