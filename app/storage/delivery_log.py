"""Deliveries as people read them, with their attempts: listed, counted, replayed and removed."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Integer, Select, and_, bindparam, case, delete, func, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.deliveries import Attempt, Delivery, DeliveryFilter, DeliveryPriority, DeliveryState, Signals
from app.domain.events import Event
from app.domain.verification import LONG_AGO
from app.domain.webhook_endpoint import EndpointState, WebhookEndpoint
from app.storage.deliveries import DELIVERY_COLUMNS, as_delivery, is_pending
from app.storage.events import EVENT_COLUMNS, as_event
from app.storage.rows import RowReader
from app.storage.tables import event
from app.storage.webhook_tables import delivery as table
from app.storage.webhook_tables import delivery_attempt, webhook_endpoint

MAX_ATTEMPTS = 20
"""The attempts of a delivery that are shown."""

_P95 = 0.95
_ATTEMPT_COLUMNS = [delivery_attempt.c[field.name] for field in fields(Attempt)]
_ATTEMPT_READER = RowReader(Attempt, delivery_id=0, at=LONG_AGO, host="", duration_ms=0)
_RECENT = (
    select(delivery_attempt.c.duration_ms, delivery_attempt.c.fault)
    .where(delivery_attempt.c.endpoint_id == bindparam("of_endpoint", type_=delivery_attempt.c.endpoint_id.type))
    .where(delivery_attempt.c.at >= bindparam("since", type_=delivery_attempt.c.at.type))
    .order_by(delivery_attempt.c.at.desc())
    .limit(bindparam("at_most", type_=Integer))
    .subquery()
)
_SHARES = select(_RECENT, func.cume_dist().over(order_by=_RECENT.c.duration_ms).label("share")).subquery()
_SLOW = case((_SHARES.c.share >= literal_column(str(_P95)), _SHARES.c.duration_ms))
SIGNALS = select(func.count(), func.count(_SHARES.c.fault), func.min(_SLOW)).select_from(_SHARES)
"""The attempts at an endpoint, those that failed, and the milliseconds that 95 % of them took at most."""

# Not a join: Postgres might read all events of the type instead.
_TYPE = select(event.c.type).where(event.c.id == table.c.event_id).correlate(table).scalar_subquery().label("type")
_WITH_EVENTS = select(*DELIVERY_COLUMNS, *EVENT_COLUMNS).join(event, event.c.id == table.c.event_id)


@dataclass(frozen=True, slots=True)
class DeliveryLogStore:
    """The tables of deliveries and attempts."""

    connection: AsyncConnection

    async def find(self, delivery_id: int) -> tuple[Delivery, Event] | None:
        """Returns the delivery with this id, and its event."""
        return next(iter(await self._with_events(_WITH_EVENTS.where(table.c.id == delivery_id))), None)

    async def search(
        self, wanted: DeliveryFilter, *, limit: int, before_id: int | None, examined: int
    ) -> tuple[Sequence[tuple[Delivery, Event]], int]:
        """Returns at most `limit` deliveries of an endpoint with smaller ids and their events, newest first.

        A filter of types looks at the newest `examined` of each state, so a rare type costs no more. Returns also the
        id from which on all were examined; 0 if all were.
        """
        conditions = [table.c.endpoint_id == wanted.endpoint_id]
        if before_id is not None:
            conditions.append(table.c.id < before_id)
        if wanted.start:
            conditions.append(event.c.at >= wanted.start)
        if wanted.end:
            conditions.append(event.c.at < wanted.end)
        found: list[tuple[Delivery, Event]] = []
        complete_from = 0
        # One walk along the index per state.
        for state in wanted.states or DeliveryState:
            walk = _WITH_EVENTS.where(*conditions, table.c.state == state).order_by(table.c.id.desc())
            if wanted.types:
                of_state = select(table.c.id).where(*conditions, table.c.state == state).order_by(table.c.id.desc())
                if wanted.start or wanted.end:
                    of_state = of_state.join(event, event.c.id == table.c.event_id)
                newest = of_state.add_columns(_TYPE).limit(examined).subquery()
                of_types = select(newest.c.id).where(newest.c.type.in_(wanted.types)).order_by(newest.c.id.desc())
                ids = (await self.connection.scalars(of_types.limit(limit))).all()
                walk = _WITH_EVENTS.where(table.c.id.in_(ids)).order_by(table.c.id.desc())
                if len(ids) < limit:
                    last = await self.connection.scalar(of_state.offset(examined - 1).limit(1))
                    complete_from = max(complete_from, last or 0)
            found += await self._with_events(walk.limit(limit))
        kept = sorted((each for each in found if each[0].id >= complete_from), key=lambda each: -each[0].id)
        return kept[:limit], complete_from

    async def of_verification(self, verification_id: int, *, limit: int) -> Sequence[tuple[Delivery, Event]]:
        """Returns the newest deliveries of the events of a verification, oldest first."""
        newest = _WITH_EVENTS.where(event.c.verification_id == verification_id).order_by(event.c.id.desc(), table.c.id)
        return (await self._with_events(newest.limit(limit)))[::-1]

    async def attempts(self, delivery_ids: Collection[int]) -> Mapping[int, Sequence[Attempt]]:
        """Returns the last attempts of deliveries, oldest first, at most `MAX_ATTEMPTS` of each."""
        key = delivery_attempt.c.delivery_id
        number = func.row_number().over(partition_by=key, order_by=delivery_attempt.c.id.desc()).label("number")
        rows = select(*_ATTEMPT_COLUMNS, number).where(key.in_(delivery_ids)).subquery()
        statement = select(rows).where(rows.c.number <= MAX_ATTEMPTS).order_by(rows.c.id)
        found: dict[int, list[Attempt]] = {}
        for row in await self.connection.execute(statement):
            found.setdefault(row.delivery_id, []).append(_ATTEMPT_READER.read(row[:-1])[0])
        return found

    async def count_pending(self, endpoint_id: str, *, at_most: int) -> int:
        """Counts the open deliveries of an endpoint, up to a limit."""
        some = select(table.c.id).where(table.c.endpoint_id == endpoint_id, is_pending()).limit(at_most).subquery()
        return (await self.connection.execute(select(func.count()).select_from(some))).scalar_one()

    async def count_waiting(self, *, at_most: int) -> Mapping[EndpointState, int]:
        """Counts the open deliveries by the state of their endpoint, up to a limit for each endpoint."""
        some = (
            select(literal_column("1"))
            .where(table.c.endpoint_id == webhook_endpoint.c.id, is_pending())
            .limit(at_most)
            .correlate(webhook_endpoint)
            .subquery()
        )
        number = select(func.count()).select_from(some).scalar_subquery()
        counts: Counter[EndpointState] = Counter()
        for state, count in await self.connection.execute(select(webhook_endpoint.c.state, number)):
            counts[state] += count
        return counts

    async def signals(self, endpoint_id: str, since: datetime, *, at_most: int) -> Signals:
        """Returns how the attempts at an endpoint since an instant ended, the newest ones up to a limit."""
        parameters = {"of_endpoint": endpoint_id, "since": since, "at_most": at_most}
        attempts, failures, p95_ms = (await self.connection.execute(SIGNALS, parameters)).one()
        # SQLite also stores texts.
        return Signals(attempts, failures, p95_ms if isinstance(p95_ms, int) else None)

    async def drop(self, endpoint_id: str, now: datetime, *, limit: int) -> int:
        """Ends open deliveries of an endpoint without sending them, at most `limit`; returns how many."""
        some = (
            select(table.c.id)
            .where(table.c.endpoint_id == endpoint_id, is_pending(), table.c.is_leased.is_(False))
            .order_by(table.c.id)
            .limit(limit)
            .with_for_update()
        )
        ids = (await self.connection.scalars(some)).all()
        values = {"state": DeliveryState.DROPPED, "due_at": None, "ended_at": now}
        await self.connection.execute(update(table).where(table.c.id.in_(ids)).values(values))
        return len(ids)

    async def bring_forward(self, endpoint_id: str, now: datetime) -> None:
        """Makes the open deliveries of an endpoint due that wait for a later attempt."""
        later = update(table).where(table.c.endpoint_id == endpoint_id, table.c.due_at > now, ~table.c.is_leased)
        await self.connection.execute(later.values(due_at=now))

    async def replayable(
        self, endpoint: WebhookEndpoint, start: datetime, end: datetime, *, after: int, limit: int
    ) -> Sequence[tuple[Event, Delivery | None]]:
        """Returns events of an endpoint's client behind a position, in order, each with its delivery there."""
        statement = (
            select(*EVENT_COLUMNS, *DELIVERY_COLUMNS)
            .outerjoin(table, and_(table.c.event_id == event.c.id, table.c.endpoint_id == endpoint.id))
            .where(event.c.client == endpoint.client, event.c.position > after)
            .where(event.c.at >= start, event.c.at < end)
            .order_by(event.c.position)
            .limit(limit)
        )
        width = len(EVENT_COLUMNS)
        return [
            (as_event(row[:width]), None if row[width] is None else as_delivery(row[width:]))
            for row in await self.connection.execute(statement)
        ]

    async def remove_of_endpoint(self, endpoint_id: str, *, limit: int) -> int:
        """Removes deliveries of an endpoint with their attempts, at most `limit`; returns how many."""
        some = select(table.c.id).where(table.c.endpoint_id == endpoint_id).limit(limit)
        return (await self.connection.execute(delete(table).where(table.c.id.in_(some)))).rowcount

    async def remove_heads(self, before: datetime, *, limit: int) -> int:
        """Removes the answers of attempts before an instant, at most `limit`; returns how many."""
        old = delivery_attempt.c.head.is_not(None) & (delivery_attempt.c.at < before)
        some = select(delivery_attempt.c.id).where(old).order_by(delivery_attempt.c.at).limit(limit)
        statement = update(delivery_attempt).where(delivery_attempt.c.id.in_(some)).values(head=None)
        return (await self.connection.execute(statement)).rowcount

    async def remove_heads_of(self, verification_ids: Collection[int]) -> None:
        """Removes the answers about verifications: a receiver may have returned personal data."""
        some = select(table.c.id).where(table.c.event_id == event.c.id, event.c.verification_id.in_(verification_ids))
        statement = update(delivery_attempt).where(delivery_attempt.c.delivery_id.in_(some)).values(head=None)
        await self.connection.execute(statement)

    async def oldest_due_at(self, now: datetime) -> datetime | None:
        """Returns since when a healthy endpoint has waited for a delivery; None if none waits."""
        dues = [
            select(func.min(table.c.due_at))
            .where(table.c.endpoint_id == webhook_endpoint.c.id, table.c.priority == literal_column(str(int(priority))))
            .where(table.c.due_at <= now)
            .scalar_subquery()
            for priority in DeliveryPriority
        ]
        statement = select(*dues).where(webhook_endpoint.c.state == EndpointState.ENABLED)
        found = [at for row in await self.connection.execute(statement) for at in row if isinstance(at, datetime)]
        return min(found, default=None)

    async def _with_events(self, statement: Select[Any]) -> Sequence[tuple[Delivery, Event]]:
        width = len(DELIVERY_COLUMNS)
        rows = await self.connection.execute(statement)
        return [(as_delivery(row[:width]), as_event(row[width:])) for row in rows]
