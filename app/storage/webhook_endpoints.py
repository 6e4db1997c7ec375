"""Webhook endpoints in the database."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Row, Select, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.webhook_endpoint import EndpointState, WebhookEndpoint
from app.storage.key_usage import ENDPOINTS, PREVIOUS_SECRETS, is_outdated_by
from app.storage.tables import columns_of
from app.storage.webhook_tables import webhook_endpoint as table

ENDPOINT_COLUMNS = [table.c[field.name] for field in fields(WebhookEndpoint)]


@dataclass(frozen=True, slots=True)
class WebhookEndpointStore:
    """The table of webhook endpoints."""

    connection: AsyncConnection

    async def add(self, endpoint: WebhookEndpoint) -> None:
        """Inserts a new endpoint."""
        await self.connection.execute(insert(table).values(columns_of(endpoint)))

    async def find(self, endpoint_id: str) -> WebhookEndpoint | None:
        """Returns the endpoint with this id."""
        return next(iter(await self._select(select(*ENDPOINT_COLUMNS).where(table.c.id == endpoint_id))), None)

    async def lock(self, ids: Collection[str]) -> Sequence[WebhookEndpoint]:
        """Locks and returns endpoints, in the order of their ids. Events may still be added for them."""
        locked = select(*ENDPOINT_COLUMNS).where(table.c.id.in_(ids)).order_by(table.c.id)
        return await self._select(locked.with_for_update(key_share=True))

    async def list(
        self, client: str | None = None, *, limit: int | None = None, after_id: str = ""
    ) -> Sequence[WebhookEndpoint]:
        """Returns the endpoints of a client, None for all, in the order of their ids."""
        statement = select(*ENDPOINT_COLUMNS).where(table.c.id > after_id).order_by(table.c.id).limit(limit)
        return await self._select(statement if client is None else statement.where(table.c.client == client))

    async def list_of_clients(self, clients: Collection[str]) -> Sequence[WebhookEndpoint]:
        """Returns all endpoints of these clients."""
        return await self._select(select(*ENDPOINT_COLUMNS).where(table.c.client.in_(clients)))

    async def lock_outdated(self, newest: bytes, *, after_id: str, limit: int) -> Sequence[WebhookEndpoint]:
        """Locks and returns endpoints with larger ids that have a secret from before the newest version of a key."""
        is_outdated = or_(*(is_outdated_by(column, newest) for column in (ENDPOINTS, PREVIOUS_SECRETS)))
        statement = select(*ENDPOINT_COLUMNS).where(table.c.id > after_id, is_outdated).order_by(table.c.id)
        return await self._select(statement.limit(limit).with_for_update(key_share=True))

    async def count(self, client: str) -> int:
        """Counts the endpoints of a client."""
        statement = select(func.count()).select_from(table).where(table.c.client == client)
        return (await self.connection.execute(statement)).scalar_one()

    async def count_by_state(self) -> dict[EndpointState, int]:
        """Counts the endpoints of all clients."""
        statement = select(table.c.state, func.count()).group_by(table.c.state)
        return {row[0]: row[1] for row in await self.connection.execute(statement)}

    async def save(self, before: WebhookEndpoint, after: WebhookEndpoint) -> None:
        """Writes the columns that differ between a locked endpoint and its new value."""
        old, new = columns_of(before), columns_of(after)
        changes = {name: value for name, value in new.items() if value != old[name]}
        if changes:
            await self.connection.execute(update(table).where(table.c.id == before.id).values(changes))

    async def remove(self, endpoint_id: str) -> None:
        """Removes an endpoint."""
        await self.connection.execute(delete(table).where(table.c.id == endpoint_id))

    async def _select(self, statement: Select[Any]) -> Sequence[WebhookEndpoint]:
        return [as_endpoint(row) for row in await self.connection.execute(statement)]


def as_endpoint(row: Row[Any]) -> WebhookEndpoint:
    """Converts a row of `ENDPOINT_COLUMNS`."""
    return WebhookEndpoint(**row._asdict())
