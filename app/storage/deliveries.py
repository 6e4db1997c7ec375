"""Deliveries: claimed per endpoint, like the queue of verifications, and recorded with their attempts.

Of one verification, only the delivery with the lowest open position can be claimed for an endpoint, so its events
arrive in order. The row of the endpoint is locked during a claim, so two workers never exceed its limits together.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    FromClause,
    Integer,
    bindparam,
    case,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.deliveries import Attempt, Delivery, DeliveryPriority, DeliveryState
from app.domain.events import Event
from app.domain.verification import LONG_AGO
from app.domain.webhook_endpoint import EndpointState, WebhookEndpoint
from app.storage.events import EVENT_COLUMNS, as_event
from app.storage.rows import RowReader
from app.storage.tables import columns_of, event
from app.storage.webhook_endpoints import ENDPOINT_COLUMNS, as_endpoint
from app.storage.webhook_tables import delivery as table
from app.storage.webhook_tables import delivery_attempt, webhook_endpoint

DELIVERY_COLUMNS = [table.c[field.name] for field in fields(Delivery)]
_READER = RowReader(Delivery, endpoint_id="", event_id=0, position=0, created_at=LONG_AGO)
_CHANGING = ("state", "due_at", "is_leased", "step", "attempts", "ended_at", "priority")

_at = bindparam("at", type_=table.c.due_at.type)
_of_endpoint = bindparam("of_endpoint", type_=table.c.endpoint_id.type)
_at_most = bindparam("at_most", type_=Integer)


def is_pending(of: FromClause = table) -> ColumnElement[bool]:
    """Returns the condition that a delivery is open."""
    # A literal, so the databases recognise the condition of the index.
    return of.c.state == literal_column(f"'{DeliveryState.PENDING}'")


def _blocked() -> ColumnElement[bool]:
    """Returns the condition that an earlier event of the same verification is still open."""
    earlier = table.alias("earlier")
    return exists().where(
        earlier.c.endpoint_id == table.c.endpoint_id,
        earlier.c.verification_id == table.c.verification_id,
        earlier.c.position < table.c.position,
        is_pending(earlier),
    )


def _claim_statement() -> Executable:
    branches = [
        select(
            select(table.c.id, table.c.priority, table.c.due_at)
            .where(table.c.endpoint_id == _of_endpoint, table.c.priority == literal_column(str(int(priority))))
            .where(table.c.due_at <= _at, ~_blocked())
            .order_by(table.c.due_at)
            .limit(_at_most)
            # SQLite has one writer and omits the clause.
            .with_for_update(skip_locked=True, of=table)
            .subquery()
        )
        for priority in DeliveryPriority
    ]
    everything = union_all(*branches).subquery()
    # See `app.storage.queue`: a plain subquery may run once per row.
    first = select(everything.c.id).order_by(everything.c.priority, everything.c.due_at).limit(_at_most).cte("first")
    return (
        update(table)
        .where(table.c.id.in_(select(first.prefix_with("MATERIALIZED", dialect="postgresql").c.id)))
        .values(due_at=bindparam("until", type_=table.c.due_at.type), claim=table.c.claim + 1, is_leased=true())
        .returning(*DELIVERY_COLUMNS)
    )


def _is_due(priority: DeliveryPriority) -> ColumnElement[bool]:
    return exists().where(
        table.c.endpoint_id == webhook_endpoint.c.id,
        table.c.priority == literal_column(str(int(priority))),
        table.c.due_at <= _at,
    )


# Built once: building a statement takes several times as long as running it.
_CLAIM = _claim_statement()
_IS_READY = (
    (webhook_endpoint.c.state != EndpointState.DISABLED)
    & (webhook_endpoint.c.paused_until.is_(None) | (webhook_endpoint.c.paused_until <= _at))
    & or_(*map(_is_due, DeliveryPriority))
)
_HAS_DUE = select(webhook_endpoint.c.id).where(_IS_READY).limit(1)
_LOCK_DUE = (
    select(*ENDPOINT_COLUMNS)
    .where(_IS_READY)
    .order_by(case((webhook_endpoint.c.id > bindparam("after_id"), 0), else_=1), webhook_endpoint.c.id)
    .limit(_at_most)
    .with_for_update(key_share=True, skip_locked=True)
)
_IN_FLIGHT = (
    select(table.c.endpoint_id, func.count())
    .where(table.c.is_leased, table.c.due_at > _at, table.c.endpoint_id.in_(bindparam("ids", expanding=True)))
    .group_by(table.c.endpoint_id)
)
_ADD = {
    name: dialect.insert(table).on_conflict_do_nothing(index_elements=[table.c.event_id, table.c.endpoint_id])
    for name, dialect in (("postgresql", postgresql), ("sqlite", sqlite))
}
_LOCK = (
    select(*DELIVERY_COLUMNS)
    .where(table.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(table.c.id)
    .with_for_update()
)
_SAVE = update(table).where(table.c.id == bindparam("row_id"))
_ADD_ATTEMPTS = insert(delivery_attempt)
# The followers cannot be claimed before it, so claims need not examine them.
_PUT_OFF_FOLLOWERS = (
    update(table)
    .where(table.c.endpoint_id == _of_endpoint, table.c.verification_id == bindparam("of_verification"))
    .where(table.c.position > bindparam("behind"), is_pending())
    .where(table.c.due_at < _at)
    .values(due_at=_at)
)


@dataclass(frozen=True, slots=True)
class DeliveryStore:
    """The queue of deliveries."""

    connection: AsyncConnection

    async def add_all(self, deliveries: Collection[Delivery]) -> None:
        """Inserts deliveries. One of the same event and endpoint stays as it is."""
        rows = [columns_of(one) for one in deliveries]
        for row in rows:
            del row["id"]
        if rows:
            await self.connection.execute(_ADD[self.connection.dialect.name], rows)

    async def lock_due_endpoints(self, now: datetime, *, after_id: str, limit: int) -> Sequence[WebhookEndpoint]:
        """Locks and returns endpoints with due deliveries, beginning behind an id; skips locked ones.

        Endpoints that are disabled or paused cost one row each, however many deliveries wait for them.
        """
        rows = await self.connection.execute(_LOCK_DUE, {"at": now, "after_id": after_id, "at_most": limit})
        return [as_endpoint(row) for row in rows]

    async def has_due(self, now: datetime) -> bool:
        """Returns whether an endpoint has due deliveries, also if all of them are blocked."""
        return (await self.connection.scalar(_HAS_DUE, {"at": now})) is not None

    async def in_flight(self, endpoint_ids: Collection[str], now: datetime) -> Mapping[str, int]:
        """Counts the deliveries that workers have claimed, by endpoint."""
        rows = await self.connection.execute(_IN_FLIGHT, {"at": now, "ids": list(endpoint_ids)})
        return {row[0]: row[1] for row in rows}

    async def claim(self, endpoint_id: str, now: datetime, *, lease: timedelta, limit: int) -> Sequence[Delivery]:
        """Claims at most `limit` due deliveries of a locked endpoint. Replays follow fresh ones."""
        parameters = {"of_endpoint": endpoint_id, "at": now, "until": now + lease, "at_most": limit}
        return [as_delivery(row) for row in await self.connection.execute(_CLAIM, parameters)]

    async def events(self, deliveries: Collection[Delivery]) -> Mapping[int, Event]:
        """Returns the events of deliveries by their ids."""
        statement = select(*EVENT_COLUMNS).where(event.c.id.in_({one.event_id for one in deliveries}))
        return {row.id: as_event(row) for row in await self.connection.execute(statement)}

    async def lock(self, ids: Collection[int]) -> Sequence[Delivery]:
        """Locks and returns deliveries, in the order of their ids."""
        return [as_delivery(row) for row in await self.connection.execute(_LOCK, {"ids": list(ids)})]

    async def save_all(self, deliveries: Collection[Delivery]) -> None:
        """Writes the progress of locked deliveries."""
        rows = [{"row_id": one.id} | {name: getattr(one, name) for name in _CHANGING} for one in deliveries]
        if rows:
            await self.connection.execute(_SAVE, rows)

    async def add_attempts(self, attempts: Collection[Attempt]) -> None:
        """Inserts attempts."""
        rows = [columns_of(one) for one in attempts]
        for row in rows:
            del row["id"]
        if rows:
            await self.connection.execute(_ADD_ATTEMPTS, rows)

    async def put_off_followers(self, deliveries: Collection[Delivery]) -> None:
        """Makes later deliveries of the same verifications and endpoints due no earlier than these."""
        rows = [
            {
                "of_endpoint": one.endpoint_id,
                "of_verification": one.verification_id,
                "behind": one.position,
                "at": one.due_at,
            }
            for one in deliveries
            if one.verification_id is not None and one.due_at is not None
        ]
        if rows:
            await self.connection.execute(_PUT_OFF_FOLLOWERS, rows)

    async def hand_back(self, claimed: Collection[Delivery], now: datetime) -> None:
        """Releases claims that are still held, and makes their deliveries due at once."""
        held = tuple_(table.c.id, table.c.claim).in_([(one.id, one.claim) for one in claimed])
        await self.connection.execute(update(table).where(table.c.is_leased, held).values(due_at=now, is_leased=False))


def as_delivery(row: Sequence[Any]) -> Delivery:
    """Converts a row of `DELIVERY_COLUMNS`. Malformed values are replaced."""
    return _READER.read(row)[0]
