"""The rows of API keys."""

import ipaddress
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, insert, select, update

from app.domain.access import ApiKey, Scope
from app.storage.database import Transaction
from app.storage.tables import api_key as table
from app.storage.tables import columns_of


class KeyStore:
    """The table of API keys. The caller brings the transaction."""

    async def add(self, tx: Transaction, key: ApiKey) -> None:
        """Inserts a new key."""
        lists = {"scopes": " ".join(sorted(key.scopes)), "networks": " ".join(map(str, key.networks))}
        await tx.execute(insert(table).values(columns_of(key) | lists))

    async def find(self, tx: Transaction, key_id: str) -> ApiKey | None:
        """The key of this id."""
        row = (await tx.execute(select(table).where(table.c.id == key_id))).one_or_none()
        return _as_key(row) if row else None

    async def list(self, tx: Transaction) -> Sequence[ApiKey]:
        """All keys, the oldest first."""
        return [_as_key(row) for row in await tx.execute(select(table).order_by(table.c.created_at, table.c.id))]

    async def revoke(self, tx: Transaction, key_id: str, now: datetime) -> bool:
        """Ends a key; whether there was a living one."""
        statement = update(table).where(table.c.id == key_id, table.c.revoked_at.is_(None)).values(revoked_at=now)
        return (await tx.execute(statement)).rowcount == 1


def _as_key(row: Row[Any]) -> ApiKey:
    values = row._asdict()
    scopes = frozenset(map(Scope, values["scopes"].split()))
    networks = tuple(map(ipaddress.ip_network, values["networks"].split()))
    return ApiKey(**values | {"scopes": scopes, "networks": networks})
