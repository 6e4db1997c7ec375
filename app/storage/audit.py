"""The audit trail in the database: rows that are only added, and the hash chain that shows tampering."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import String, func, insert, select, text, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.audit import Action, AuditFilter, AuditRecord, ChainLink
from app.domain.verification import LONG_AGO
from app.storage.rows import RowReader
from app.storage.tables import audit as table
from app.storage.tables import audit_link, columns_of, verification

# An altered action is any text, and verifying the chain must be able to name its row.
_ACTION = type_coerce(table.c.action, String).label("action")
_COLUMNS = [_ACTION if field.name == "action" else table.c[field.name] for field in fields(AuditRecord)]
_READER = RowReader(
    AuditRecord, at=LONG_AGO, **dict.fromkeys(("who", "key_id", "client", "action", "request_id", "outcome"), "")
)
_LINK_READER = RowReader(ChainLink, position=0, audit_id=0, hash=b"")
_INSERT = insert(table)


@dataclass(frozen=True, slots=True)
class AuditStore:
    """The tables of the audit trail."""

    connection: AsyncConnection

    async def add(self, records: Sequence[AuditRecord]) -> None:
        """Inserts records."""
        rows = [columns_of(record) for record in records]
        for row in rows:
            del row["id"]
        await self.connection.execute(_INSERT, rows)

    async def list(
        self, wanted: AuditFilter, *, limit: int, before_id: int | None
    ) -> Sequence[tuple[AuditRecord, str | None]]:
        """Returns records older than `before_id`, newest first, each with its BizToken if it has one that is a text."""
        statement = (
            select(*_COLUMNS, verification.c.biz_token)
            .outerjoin(verification, verification.c.id == table.c.verification_id)
            .order_by(table.c.id.desc())
            .limit(limit)
        )
        for name in ("action", "key_id", "outcome"):
            if (value := getattr(wanted, name)) is not None:
                statement = statement.where(table.c[name] == value)
        if wanted.verification_ids is not None:
            statement = statement.where(table.c.verification_id.in_(wanted.verification_ids))
        if wanted.at_from is not None:
            statement = statement.where(table.c.at >= wanted.at_from)
        if wanted.at_to is not None:
            statement = statement.where(table.c.at < wanted.at_to)
        if before_id is not None:
            statement = statement.where(table.c.id < before_id)
        found = await self.connection.execute(statement)
        return [(_as_record(row[:-1]), row.biz_token if isinstance(row.biz_token, str) else None) for row in found]

    async def has(self, action: Action, subject: str) -> bool:
        """Returns whether there is a record of this action about this API key."""
        statement = select(table.c.id).where(table.c.subject == subject, table.c.action == action).limit(1)
        return (await self.connection.scalar(statement)) is not None

    async def stop_writers(self) -> None:
        """Waits for transactions that add records and blocks new ones until this transaction ends.

        Ids are assigned before the commit. Without the lock a row could appear below one that is already linked. SQLite
        has one writer anyway.
        """
        if self.connection.dialect.name == "postgresql":
            await self.connection.execute(text("LOCK TABLE audit IN SHARE ROW EXCLUSIVE MODE"))

    async def last_link(self) -> ChainLink | None:
        """Returns the end of the chain."""
        statement = select(audit_link).order_by(audit_link.c.position.desc()).limit(1)
        row = (await self.connection.execute(statement)).one_or_none()
        return _as_link(row) if row else None

    async def has_link(self, link: ChainLink) -> bool:
        """Returns whether the chain has this link."""
        same = (audit_link.c.position == link.position) & (audit_link.c.hash == link.hash)
        return (await self.connection.scalar(select(audit_link.c.position).where(same))) is not None

    async def after(self, audit_id: int, *, limit: int) -> Sequence[AuditRecord]:
        """Returns records with larger ids, in ascending order."""
        statement = select(*_COLUMNS).where(table.c.id > audit_id).order_by(table.c.id).limit(limit)
        return [_as_record(row) for row in await self.connection.execute(statement)]

    async def records(self, ids: Sequence[int]) -> Sequence[AuditRecord]:
        """Returns the records with these ids, in ascending order."""
        statement = select(*_COLUMNS).where(table.c.id.in_(ids)).order_by(table.c.id)
        return [_as_record(row) for row in await self.connection.execute(statement)]

    async def add_links(self, links: Sequence[ChainLink]) -> None:
        """Appends links to the chain."""
        await self.connection.execute(insert(audit_link), [columns_of(link) for link in links])

    async def chain(self, position: int, *, limit: int) -> Sequence[tuple[ChainLink, AuditRecord | None]]:
        """Returns the links after a position, each with its record; None if the record is missing."""
        statement = (
            select(audit_link, *_COLUMNS)
            .outerjoin(table, table.c.id == audit_link.c.audit_id)
            .where(audit_link.c.position > position)
            .order_by(audit_link.c.position)
            .limit(limit)
        )
        found = await self.connection.execute(statement)
        return [(_as_link(row[:3]), _as_record(row[3:]) if row.id else None) for row in found]

    async def first_unlinked(self, *, up_to: int) -> int | None:
        """Returns the smallest id, at most `up_to`, that no link covers."""
        links = select(audit_link.c.audit_id)
        first: int | None = await self.connection.scalar(
            select(func.min(table.c.id)).where(table.c.id <= up_to, table.c.id.not_in(links))
        )
        return first

    async def count_after(self, audit_id: int) -> int:
        """Counts the records with larger ids."""
        statement = select(func.count()).where(table.c.id > audit_id)
        return (await self.connection.execute(statement)).scalar_one()


def _as_record(row: Sequence[Any]) -> AuditRecord:
    """Converts a row of `_COLUMNS`. A malformed value is replaced, so the link of the row does not match any more."""
    record, _ = _READER.read(row)
    with suppress(ValueError):
        return replace(record, action=Action(record.action))
    return record


def _as_link(row: Sequence[Any]) -> ChainLink:
    return _LINK_READER.read(row)[0]
