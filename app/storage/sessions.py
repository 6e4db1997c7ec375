"""Sessions of the console in the database."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.api_key import Scope
from app.domain.session import ConsoleSession
from app.storage.tables import columns_of
from app.storage.tables import console_session as table


@dataclass(frozen=True, slots=True)
class SessionStore:
    """The table of sessions."""

    connection: AsyncConnection

    async def add(self, session: ConsoleSession) -> None:
        """Inserts a new session."""
        scopes = " ".join(sorted(session.scopes))
        await self.connection.execute(insert(table).values(columns_of(session) | {"scopes": scopes}))

    async def find(self, id_hash: bytes) -> ConsoleSession | None:
        """Returns the session with this hash."""
        row = (await self.connection.execute(select(table).where(table.c.id_hash == id_hash))).one_or_none()
        if row is None:
            return None
        values = row._asdict()
        return ConsoleSession(**values | {"scopes": frozenset(map(Scope, values["scopes"].split()))})

    async def notice(self, id_hash: bytes, now: datetime) -> None:
        """Stores the time of the last request."""
        await self.connection.execute(update(table).where(table.c.id_hash == id_hash).values(seen_at=now))

    async def remove(self, id_hash: bytes) -> None:
        """Removes a session."""
        await self.connection.execute(delete(table).where(table.c.id_hash == id_hash))

    async def remove_expired(self, now: datetime) -> None:
        """Removes all sessions that have expired."""
        await self.connection.execute(delete(table).where(table.c.expires_at <= now))
