"""API keys in the database."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.api_key import DESTROYED, ApiKey
from app.domain.verification import LONG_AGO
from app.storage.rows import RowReader
from app.storage.tables import api_key as table
from app.storage.tables import columns_of

_SELECT = select(*(table.c[field.name] for field in fields(ApiKey)))
_READER = RowReader(
    ApiKey,
    **dict.fromkeys(("id", "name", "client"), ""),
    scopes=frozenset(),
    sealed_digest=DESTROYED,
    created_at=LONG_AGO,
    expires_at=LONG_AGO,
)


@dataclass(frozen=True, slots=True)
class ApiKeyStore:
    """The table of API keys."""

    connection: AsyncConnection

    async def add(self, key: ApiKey) -> None:
        """Inserts a new key."""
        await self.connection.execute(insert(table).values(columns_of(key)))

    async def find(self, key_id: str) -> ApiKey | None:
        """Returns the key with this id."""
        row = (await self.connection.execute(_SELECT.where(table.c.id == key_id))).one_or_none()
        return _as_key(row) if row else None

    async def list(self) -> Sequence[ApiKey]:
        """Returns all keys, oldest first."""
        statement = _SELECT.order_by(table.c.created_at, table.c.id)
        return [_as_key(row) for row in await self.connection.execute(statement)]

    async def list_expiring(self, after: datetime, before: datetime, *, limit: int) -> Sequence[ApiKey]:
        """Returns active keys that expire between two instants, the first one first."""
        is_due = table.c.revoked_at.is_(None) & (table.c.expires_at > after) & (table.c.expires_at <= before)
        statement = _SELECT.where(is_due).order_by(table.c.expires_at, table.c.id).limit(limit)
        return [_as_key(row) for row in await self.connection.execute(statement)]

    async def revoke(self, key_id: str, now: datetime) -> bool:
        """Revokes a key and destroys its digest; returns whether there was an active one."""
        statement = update(table).where(table.c.id == key_id, table.c.revoked_at.is_(None))
        values = {"revoked_at": now, "sealed_digest": DESTROYED}
        return (await self.connection.execute(statement.values(values))).rowcount == 1


def _as_key(row: Sequence[Any]) -> ApiKey:
    """Converts a row of `_SELECT`. A malformed value is replaced, and then no secret matches the key."""
    return _READER.read(row)[0]
