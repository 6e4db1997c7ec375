"""Sessions of the console in the database."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.session import ConsoleSession
from app.storage.rows import RowReader
from app.storage.tables import columns_of
from app.storage.tables import console_session as table

_SELECT = select(*(table.c[field.name] for field in fields(ConsoleSession)))
_MAX_LISTED = 1000
_READER = RowReader(ConsoleSession)


@dataclass(frozen=True, slots=True)
class SessionStore:
    """The table of sessions."""

    connection: AsyncConnection

    async def add(self, session: ConsoleSession) -> None:
        """Inserts a new session."""
        await self.connection.execute(insert(table).values(columns_of(session)))

    async def find(self, id_hash: bytes) -> ConsoleSession | None:
        """Returns the session with this hash. A malformed row is none."""
        row = (await self.connection.execute(_SELECT.where(table.c.id_hash == id_hash))).one_or_none()
        session, is_intact = _READER.read(row) if row else (None, False)
        return session if is_intact else None

    async def list(self) -> Sequence[ConsoleSession]:
        """Returns the newest sessions, without malformed ones."""
        rows = (await self.connection.execute(_SELECT.order_by(table.c.created_at.desc()).limit(_MAX_LISTED))).all()
        return [session for session, is_intact in map(_READER.read, rows) if is_intact]

    async def notice(self, id_hash: bytes, now: datetime) -> None:
        """Stores the time of the last request."""
        await self.connection.execute(update(table).where(table.c.id_hash == id_hash).values(seen_at=now))

    async def remove(self, id_hash: bytes) -> None:
        """Removes a session."""
        await self.connection.execute(delete(table).where(table.c.id_hash == id_hash))

    async def remove_all(self, caller_id: str) -> int:
        """Removes all sessions of an API key or a person; returns how many."""
        return (await self.connection.execute(delete(table).where(table.c.caller_id == caller_id))).rowcount

    async def remove_expired(self, now: datetime) -> None:
        """Removes all sessions that have expired."""
        await self.connection.execute(delete(table).where(table.c.expires_at <= now))
