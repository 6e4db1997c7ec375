"""Deliveries for clients: listed with their attempts, sent again one by one, and replayed for a range of time."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.api_key import Actor, Scope
from app.domain.audit import Action
from app.domain.deliveries import (
    Attempt,
    Delivery,
    DeliveryFilter,
    DeliveryPriority,
    DeliveryState,
    ReplayKind,
    Signals,
    new_delivery,
    repeated,
)
from app.domain.events import Event, EventType
from app.domain.listing import Rows, decode_row_cursor, encode_row_cursor
from app.domain.rate import RateClass
from app.domain.webhook_endpoint import EndpointState, WebhookEndpoint
from app.errors import ConflictError, InvalidRequestError, NotFoundError
from app.services.audit import AuditService
from app.services.limits import LimitService
from app.services.visibility import find_endpoint, require_scope
from app.storage.database import Database, Transaction
from app.storage.wakeups import DELIVERIES, Wakeups

MAX_REPLAY = 10_000
"""How many events one replay sends."""

SIGNALS_OF = timedelta(hours=24)
"""The time whose attempts the signals of an endpoint describe."""

EXAMINED = 10_000
"""How many deliveries of each state a page with a filter of types examines."""

_BATCH = 500


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """A delivery with its event, last attempts, and the host of its endpoint. `is_held`: the endpoint is disabled."""

    delivery: Delivery
    event: Event
    attempts: Sequence[Attempt]
    is_held: bool
    host: str


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """A page of deliveries; `next_cursor` is None on the last one."""

    records: Sequence[DeliveryRecord]
    next_cursor: str | None


@dataclass(slots=True)
class Replay:
    """A replay of `count` events, the oldest of `oldest_at`. `has_more`: further ones did not fit."""

    id: str
    count: int = 0
    oldest_at: datetime | None = None
    has_more: bool = False


@dataclass(kw_only=True, repr=False, eq=False)
class DeliveryService:
    """Lists and repeats deliveries. A caller sees those of its client, an admin all.

    Each method raises ForbiddenError if the caller lacks the scope.
    """

    database: Database
    wakeups: Wakeups
    audit: AuditService
    limits: LimitService
    clock: Callable[[], datetime]

    async def list(self, actor: Actor, wanted: DeliveryFilter, *, limit: int, cursor: str | None) -> DeliveryPage:
        """Returns a page of the deliveries of an endpoint, newest first.

        With a filter of types it has fewer deliveries than wanted, or none, if the next page may have some.

        Raises:
            InvalidRequestError: the cursor is invalid.
            NotFoundError: the endpoint does not exist, or it belongs to another client.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        self.limits.admit(actor.caller, RateClass.LISTS)
        before_id = decode_row_cursor(Rows.DELIVERIES, cursor) if cursor else None
        async with self.database.read() as tx:
            endpoint = await find_endpoint(tx, actor.caller, wanted.endpoint_id)
            found, complete_from = await tx.delivery_log.search(
                wanted, limit=limit + 1, before_id=before_id, examined=EXAMINED
            )
            attempts = await tx.delivery_log.attempts([delivery.id for delivery, _ in found[:limit]])
        records = [record_of(endpoint, delivery, event, attempts) for delivery, event in found[:limit]]
        # The next page has smaller ids.
        end = found[limit - 1][0].id if len(found) > limit else complete_from
        return DeliveryPage(records, encode_row_cursor(Rows.DELIVERIES, end) if end else None)

    async def get(self, actor: Actor, delivery_id: int) -> DeliveryRecord:
        """Returns a delivery.

        Raises:
            NotFoundError: it does not exist, or it belongs to another client.
        """
        async with self.database.read() as tx:
            delivery, event, endpoint = await self._find(tx, actor, delivery_id)
            attempts = await tx.delivery_log.attempts([delivery_id])
        return record_of(endpoint, delivery, event, attempts)

    async def count_pending(self, actor: Actor, endpoint_id: str, *, at_most: int) -> int:
        """Counts the deliveries of an endpoint that wait, up to a limit.

        Raises:
            NotFoundError: the endpoint does not exist, or it belongs to another client.
        """
        async with self.database.read() as tx:
            endpoint = await find_endpoint(tx, actor.caller, endpoint_id)
            return await tx.delivery_log.count_pending(endpoint.id, at_most=at_most)

    async def signals(self, actor: Actor, endpoint_ids: Sequence[str], *, at_most: int) -> Mapping[str, Signals]:
        """Returns how the attempts of the last 24 hours ended by endpoint, the newest up to a limit for each.

        Raises:
            NotFoundError: an endpoint does not exist, or it belongs to another client.
        """
        since = self.clock() - SIGNALS_OF
        async with self.database.read() as tx:
            for endpoint_id in endpoint_ids:
                await find_endpoint(tx, actor.caller, endpoint_id)
            return {each: await tx.delivery_log.signals(each, since, at_most=at_most) for each in endpoint_ids}

    async def retry(self, actor: Actor, delivery_id: int) -> DeliveryRecord:
        """Sends a delivery again now, with a new schedule.

        Raises:
            ConflictError: it is being sent right now.
            NotFoundError: it does not exist, or it belongs to another client.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        self.limits.admit(actor.caller, RateClass.WEBHOOKS)
        async with self.database.write() as tx:
            _, event, endpoint = await self._find(tx, actor, delivery_id)
            (locked,) = await tx.deliveries.lock([delivery_id])
            now = self.clock()
            if locked.is_leased and locked.due_at and now < locked.due_at:
                raise ConflictError("The delivery is being sent right now.")
            again = repeated(locked, now)
            await tx.deliveries.save_all([again])
            await self._audit(tx, actor, endpoint, EventType(event.type), outcome=f"delivery {delivery_id}")
            attempts = await tx.delivery_log.attempts([delivery_id])
        self.wakeups.send(DELIVERIES)
        return record_of(endpoint, again, event, attempts)

    async def replay(
        self,
        actor: Actor,
        endpoint_id: str,
        which: ReplayKind,
        *,
        start: datetime,
        end: datetime,
        types: frozenset[EventType] = frozenset(),
        is_dry_run: bool = False,
    ) -> Replay:
        """Sends events of a range of time again, after all fresh ones, at most `MAX_REPLAY`, oldest first.

        Args:
            actor: who asks for it.
            endpoint_id: the receiver, whose filters stay in effect.
            which: the events to send.
            start: events from this instant on.
            end: events before this instant.
            types: only these types; empty for all.
            is_dry_run: only count.

        Raises:
            InvalidRequestError: the range is empty.
            NotFoundError: the endpoint does not exist, or it belongs to another client.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        self.limits.admit(actor.caller, RateClass.WEBHOOKS)
        if start >= end:
            raise InvalidRequestError("`from` must be before `to`.")
        done, position = Replay(f"rp_{secrets.token_hex(8)}"), 0
        async with self.database.read() as tx:
            endpoint = await find_endpoint(tx, actor.caller, endpoint_id)
        if not is_dry_run:
            async with self.database.write() as tx:
                await self._audit(tx, actor, endpoint, *sorted(types), outcome=f"{which} {done.id}")
        is_end = False
        while not is_end and not done.has_more:
            async with self.database.read() if is_dry_run else self.database.write() as tx:
                page = await tx.delivery_log.replayable(endpoint, start, end, after=position, limit=_BATCH)
                chosen = [
                    (event, delivery)
                    for event, delivery in page
                    if which.includes(delivery.state if delivery else None)
                    and endpoint.wants(event)
                    and (not types or event.type in types)
                ]
                room = MAX_REPLAY - done.count
                done.has_more = len(chosen) > room
                if not is_dry_run:
                    await self._send_again(tx, endpoint, chosen[:room])
            done.count += len(chosen[:room])
            if chosen and done.oldest_at is None:
                done.oldest_at = chosen[0][0].at
            position = page[-1][0].position or 0 if page else position
            is_end = len(page) < _BATCH
        self.wakeups.send(DELIVERIES)
        return done

    async def _send_again(
        self, tx: Transaction, endpoint: WebhookEndpoint, chosen: Sequence[tuple[Event, Delivery | None]]
    ) -> None:
        now = self.clock()
        known = await tx.deliveries.lock([delivery.id for _, delivery in chosen if delivery])
        # A delivery may have been claimed or repeated in the meantime.
        ended = [one for one in known if one.state is not DeliveryState.PENDING]
        await tx.deliveries.save_all([repeated(one, now, DeliveryPriority.REPLAY) for one in ended])
        await tx.deliveries.add_all(
            [new_delivery(endpoint, event, now, DeliveryPriority.REPLAY) for event, delivery in chosen if not delivery]
        )

    async def _find(self, tx: Transaction, actor: Actor, delivery_id: int) -> tuple[Delivery, Event, WebhookEndpoint]:
        require_scope(actor.caller, Scope.WEBHOOKS_MANAGE)
        found = await tx.delivery_log.find(delivery_id)
        endpoint = await tx.webhook_endpoints.find(found[0].endpoint_id) if found else None
        if found is None or endpoint is None or not actor.caller.can_see(endpoint.client):
            raise NotFoundError("There is no such delivery.")
        return *found, endpoint

    async def _audit(
        self, tx: Transaction, actor: Actor, endpoint: WebhookEndpoint, *types: EventType, outcome: str
    ) -> None:
        record = self.audit.describe(actor, Action.WEBHOOK_REPLAYED, subject=endpoint.id, fields=types, outcome=outcome)
        await self.audit.record(tx, record)


def record_of(
    endpoint: WebhookEndpoint, delivery: Delivery, event: Event, attempts: Mapping[int, Sequence[Attempt]]
) -> DeliveryRecord:
    """Returns a delivery as a caller of its endpoint sees it."""
    is_held = delivery.state is DeliveryState.PENDING and endpoint.state is EndpointState.DISABLED
    return DeliveryRecord(delivery, event, attempts.get(delivery.id, ()), is_held, endpoint.host)
