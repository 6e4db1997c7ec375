"""Facts about the installation: the identity of its database, and how far its clock can be trusted."""

import secrets
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from sqlalchemy import func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.verification import LONG_AGO
from app.storage.rows import RowReader
from app.storage.tables import installation as table

_ID = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """The facts. `database_id` is random and never changes; a media store records the one that owns it.

    `checked_at` is the time of the last check of the clock, `doubted_since` when a check or Tencent contradicted it.
    `erasure_stopped_at` is when the erasure of expired data began to wait for an operator.
    """

    database_id: str
    checked_at: datetime | None = None
    doubted_since: datetime | None = None
    erasure_stopped_at: datetime | None = None


_COLUMNS = [table.c[field.name] for field in fields(Installation)]
# Until the next check, a malformed doubt counts as one.
_READER = RowReader(Installation, database_id="", doubted_since=LONG_AGO)
_GET = select(*_COLUMNS).where(table.c.id == _ID)


@dataclass(frozen=True, slots=True)
class InstallationStore:
    """The only row of its table."""

    connection: AsyncConnection

    async def find(self) -> Installation | None:
        """Returns the facts; None before the first process has written them."""
        row = (await self.connection.execute(_GET)).one_or_none()
        return _READER.read(row)[0] if row else None

    async def get(self) -> Installation:
        """Returns the facts. Writes the row if it is missing."""
        insert = postgresql.insert if self.connection.dialect.name == "postgresql" else sqlite.insert
        new = insert(table).values(id=_ID, database_id=secrets.token_hex(16))
        await self.connection.execute(new.on_conflict_do_nothing())
        return _READER.read((await self.connection.execute(_GET)).one())[0]

    async def save(self, **changes: datetime | None) -> None:
        """Changes facts of the existing row, by their names."""
        await self.connection.execute(update(table).where(table.c.id == _ID).values(**changes))

    async def clock(self) -> datetime | None:
        """Returns the time of the database server, not of the transaction's begin; None on SQLite, which has none."""
        if self.connection.dialect.name != "postgresql":
            return None
        at: datetime = (await self.connection.execute(select(func.clock_timestamp()))).scalar_one()
        return at.astimezone(UTC)
