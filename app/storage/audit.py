"""The audit: rows that are only ever added, and the chain that shows whether they are still what they were."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Row, func, insert, select, text

from app.domain.audit import Action, Event, EventFilter, Link
from app.storage.database import Transaction
from app.storage.tables import audit as table
from app.storage.tables import audit_link, columns_of, verification

_COLUMNS = [table.c[field.name] for field in fields(Event)]
_INSERT = insert(table)


class AuditStore:
    """The tables of the audit. The caller brings the transaction."""

    async def add(self, tx: Transaction, events: Sequence[Event]) -> None:
        """Puts events on record, before what they tell of happens."""
        rows = [columns_of(event) for event in events]
        for row in rows:
            del row["id"]
        await tx.execute(_INSERT, rows)

    async def list(
        self, tx: Transaction, wanted: EventFilter, *, limit: int, before_id: int | None
    ) -> Sequence[tuple[Event, str | None]]:
        """The newest first, all older than `before_id`, each with its BizToken."""
        statement = (
            select(*_COLUMNS, verification.c.biz_token)
            .outerjoin(verification, verification.c.id == table.c.verification_id)
            .order_by(table.c.id.desc())
            .limit(limit)
        )
        for name in ("action", "key_id", "verification_id"):
            if (value := getattr(wanted, name)) is not None:
                statement = statement.where(table.c[name] == value)
        if wanted.at_from is not None:
            statement = statement.where(table.c.at >= wanted.at_from)
        if wanted.at_to is not None:
            statement = statement.where(table.c.at < wanted.at_to)
        if before_id is not None:
            statement = statement.where(table.c.id < before_id)
        return [(_event(row), row.biz_token) for row in await tx.execute(statement)]

    async def stop_writers(self, tx: Transaction) -> None:
        """Waits for all that is being added, and lets nobody add until the transaction is over.

        Numbers are given out before rows are committed: without this, a row could come up below one that is linked
        already. SQLite has one writer anyway.
        """
        if tx.dialect.name == "postgresql":
            await tx.execute(text("LOCK TABLE audit IN SHARE ROW EXCLUSIVE MODE"))

    async def last_link(self, tx: Transaction) -> Link | None:
        """The end of the chain."""
        row = (await tx.execute(select(audit_link).order_by(audit_link.c.position.desc()).limit(1))).one_or_none()
        return Link(*row) if row else None

    async def after(self, tx: Transaction, audit_id: int, *, limit: int) -> Sequence[Event]:
        """The rows with larger numbers, in their order."""
        statement = select(*_COLUMNS).where(table.c.id > audit_id).order_by(table.c.id).limit(limit)
        return [_event(row) for row in await tx.execute(statement)]

    async def add_links(self, tx: Transaction, links: Sequence[Link]) -> None:
        """Makes the chain longer."""
        await tx.execute(insert(audit_link), [columns_of(link) for link in links])

    async def chain(self, tx: Transaction, position: int, *, limit: int) -> Sequence[tuple[Link, Event | None]]:
        """The links behind a position, each with its row; None where that is missing."""
        statement = (
            select(audit_link, *_COLUMNS)
            .outerjoin(table, table.c.id == audit_link.c.audit_id)
            .where(audit_link.c.position > position)
            .order_by(audit_link.c.position)
            .limit(limit)
        )
        return [(Link(*row[:3]), _event(row) if row.id else None) for row in await tx.execute(statement)]

    async def unlinked(self, tx: Transaction, *, up_to: int) -> int | None:
        """The first row up to this number that no link names."""
        links = select(audit_link.c.audit_id)
        first: int | None = await tx.scalar(
            select(func.min(table.c.id)).where(table.c.id <= up_to, table.c.id.not_in(links))
        )
        return first

    async def count_after(self, tx: Transaction, audit_id: int) -> int:
        """How many rows have larger numbers."""
        return (await tx.execute(select(func.count()).where(table.c.id > audit_id))).scalar_one()


def _event(row: Row[*tuple[Any, ...]]) -> Event:
    values = {field.name: getattr(row, field.name) for field in fields(Event)}
    return Event(**values | {"action": Action(values["action"])})
