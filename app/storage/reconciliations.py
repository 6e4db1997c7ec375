"""How far each day's bill of each rule has been read; a row is claimed as a verification is."""

from datetime import date, datetime, timedelta

from sqlalchemy import ColumnElement, update
from sqlalchemy.dialects import postgresql, sqlite

from app.storage.database import Transaction
from app.storage.tables import reconciliation as table


class ReconciliationStore:
    """The table of reconciliations. The caller brings the transaction."""

    async def claim(self, tx: Transaction, rule_id: str, day: date, *, now: datetime, lease: timedelta) -> int | None:
        """The cursor to go on at, for the length of the lease; None if the bill is read, or somebody is at it."""
        insert = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
        new = insert(table).values(rule_id=rule_id, day=day, cursor=0, due_at=now)
        await tx.execute(new.on_conflict_do_nothing())
        statement = update(table).where(_is(rule_id, day), table.c.due_at <= now).values(due_at=now + lease)
        cursor: int | None = await tx.scalar(statement.returning(table.c.cursor))
        return cursor

    async def go_on(self, tx: Transaction, rule_id: str, day: date, *, cursor: int, due_at: datetime | None) -> None:
        """Where to go on and when; None for never: all of it is read."""
        await tx.execute(update(table).where(_is(rule_id, day)).values(cursor=cursor, due_at=due_at))


def _is(rule_id: str, day: date) -> ColumnElement[bool]:
    return (table.c.rule_id == rule_id) & (table.c.day == day)
