"""Webhook endpoints in the database."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import Select, bindparam, delete, func, insert, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.deliveries import Fault
from app.domain.verification import LONG_AGO
from app.domain.webhook_endpoint import EndpointState, WebhookEndpoint
from app.storage.column_types import IMPOSSIBLE
from app.storage.key_usage import ENDPOINTS, PREVIOUS_SECRETS, is_outdated_by
from app.storage.rows import RowReader
from app.storage.tables import columns_of
from app.storage.webhook_tables import webhook_endpoint as table

ENDPOINT_COLUMNS = [table.c[field.name] for field in fields(WebhookEndpoint)]
_READER = RowReader(
    WebhookEndpoint,
    **dict.fromkeys(("id", "client", "url"), ""),
    sealed_secret=b"",
    created_at=LONG_AGO,
    updated_at=LONG_AGO,
)
# Runs for each batch of events, so it is built once.
_OF_CLIENTS = select(*ENDPOINT_COLUMNS).where(table.c.client.in_(bindparam("clients", expanding=True)))
# Two transactions cannot see each other's new endpoints. SQLite has one writer anyway.
_LOCK_CLIENT = text("SELECT pg_advisory_xact_lock(hashtextextended('webhook endpoints of ' || :client, 0))")


@dataclass(frozen=True, slots=True)
class WebhookEndpointStore:
    """The table of webhook endpoints."""

    connection: AsyncConnection

    async def add(self, endpoint: WebhookEndpoint, *, at_most: int) -> bool:
        """Inserts a new endpoint, unless its client has so many already; returns whether it did."""
        if self.connection.dialect.name == "postgresql":
            await self.connection.execute(_LOCK_CLIENT, {"client": endpoint.client})
        known = select(func.count()).select_from(table).where(table.c.client == endpoint.client)
        if (await self.connection.execute(known)).scalar_one() >= at_most:
            return False
        await self.connection.execute(insert(table).values(columns_of(endpoint)))
        return True

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
        return await self._select(_OF_CLIENTS, clients=list(clients))

    async def lock_outdated(self, newest: bytes, *, after_id: str, limit: int) -> Sequence[WebhookEndpoint]:
        """Locks and returns endpoints with larger ids that have a secret from before the newest version of a key."""
        is_outdated = or_(*(is_outdated_by(column, newest) for column in (ENDPOINTS, PREVIOUS_SECRETS)))
        statement = select(*ENDPOINT_COLUMNS).where(table.c.id > after_id, is_outdated).order_by(table.c.id)
        return await self._select(statement.limit(limit).with_for_update(key_share=True))

    async def count_by_state(self) -> Mapping[EndpointState, int]:
        """Counts the endpoints of all clients. A malformed state counts as disabled."""
        statement = select(table.c.state, func.count()).group_by(table.c.state)
        counts: Counter[EndpointState] = Counter()
        for state, number in await self.connection.execute(statement):
            counts[EndpointState.DISABLED if state is IMPOSSIBLE else state] += number
        return counts

    async def save(self, before: WebhookEndpoint, after: WebhookEndpoint) -> None:
        """Writes the columns that differ between a locked endpoint and its new value."""
        old, new = columns_of(before), columns_of(after)
        changes = {name: value for name, value in new.items() if value != old[name]}
        if changes:
            await self.connection.execute(update(table).where(table.c.id == before.id).values(changes))

    async def remove(self, endpoint_id: str) -> None:
        """Removes an endpoint."""
        await self.connection.execute(delete(table).where(table.c.id == endpoint_id))

    async def _select(self, statement: Select[Any], **parameters: Any) -> Sequence[WebhookEndpoint]:
        return [as_endpoint(row) for row in await self.connection.execute(statement, parameters)]


def as_endpoint(row: Sequence[Any]) -> WebhookEndpoint:
    """Converts a row of `ENDPOINT_COLUMNS`. A malformed one counts as disabled: its events are held."""
    endpoint, is_intact = _READER.read(row)
    return endpoint if is_intact else replace(endpoint, state=EndpointState.DISABLED, last_fault=Fault.ALTERED)
