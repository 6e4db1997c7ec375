"""Sends events to webhook endpoints: claims deliveries, sends them, and records what came back. For workers."""

import asyncio
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from app.domain.deliveries import (
    Answer,
    Delivery,
    DeliveryState,
    Fault,
    after,
    attempt_of,
    new_delivery,
    state_event,
    without_event,
)
from app.domain.events import Event, body
from app.domain.webhook_endpoint import EndpointState, WebhookEndpoint, rate_name
from app.observability import DELIVERIES, DELIVERY_SECONDS
from app.sealing.aead import TamperedDataError
from app.sealing.endpoint_secrets import SecretCipher
from app.services.batching import Batcher
from app.services.clock import Clock
from app.storage import wakeups
from app.storage.database import Database, Transaction
from app.webhooks.client import Receiver, WebhookClient
from app.webhooks.signatures import signed_headers

LEASE = timedelta(seconds=30)
"""Twice the deadline of a message. The claims of a dead worker come due after it."""

HEAD_RETENTION = timedelta(days=7)
"""How long the answers of receivers are kept."""

_BATCH = 500
_CHANCES = 1000
# Of an endpoint with a rate, deliveries that would have to wait longer stay due, for any worker.
_FARTHEST_SLOT = timedelta(seconds=1)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DeliveryClaim:
    """A delivery claimed for a lease, with its event. It may be sent at `slot` (monotonic)."""

    delivery: Delivery
    event: Event
    endpoint: WebhookEndpoint
    slot: float


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The end of an attempt."""

    claim: DeliveryClaim
    answer: Answer
    begun_at: datetime


@dataclass(kw_only=True, repr=False, eq=False)
class DeliverService:
    """Delivers events, at least once and in order for each verification and endpoint."""

    database: Database
    secrets: SecretCipher
    client: WebhookClient
    clock: Clock
    _last_id: str = field(init=False, default="")
    _is_idle: bool = field(init=False, default=True)
    _record: Batcher[_Outcome, None] = field(init=False)

    def __post_init__(self) -> None:
        self._record = Batcher(self._record_batch)

    async def fan_out(self, tx: Transaction, events: Sequence[Event]) -> Collection[str]:
        """Adds a delivery for each event and endpoint that wants it, in the transaction that assigns the positions.

        Returns the topic of deliveries if there are any.
        """
        endpoints = await tx.webhook_endpoints.list_of_clients({event.client for event in events})
        now = self.clock()
        new = [
            new_delivery(endpoint, event, now)
            for event in events
            for endpoint in endpoints
            if endpoint.client == event.client and endpoint.wants(event)
        ]
        await tx.deliveries.add_all(new)
        return {wakeups.DELIVERIES} if new else ()

    async def take(self, limit: int) -> Sequence[DeliveryClaim]:
        """Claims due deliveries, at most `limit`, and few of each endpoint, in turns of the endpoints."""
        if limit <= 0 or not await self._has_due():
            return []
        now, taken = self.clock(), list[tuple[Delivery, WebhookEndpoint, float]]()
        async with self.database.write() as tx:
            endpoints = await tx.deliveries.lock_due_endpoints(now, after_id=self._last_id, limit=limit)
            self._is_idle = not endpoints
            in_flight = await tx.deliveries.in_flight([endpoint.id for endpoint in endpoints], now)
            for endpoint in endpoints:
                # A malformed row is found as well.
                if endpoint.state is EndpointState.DISABLED:
                    continue
                free = min(limit - len(taken), endpoint.concurrency - in_flight.get(endpoint.id, 0))
                taken += await self._take_of(tx, endpoint, free, now)
            self._last_id = endpoints[-1].id if endpoints else self._last_id
            events = await tx.deliveries.events([delivery for delivery, _, _ in taken])
            lost = [delivery for delivery, _, _ in taken if delivery.event_id not in events]
            await tx.deliveries.save_all([without_event(delivery, now) for delivery in lost])
        return [
            DeliveryClaim(delivery, events[delivery.event_id], endpoint, slot)
            for delivery, endpoint, slot in taken
            if delivery.event_id in events
        ]

    async def _has_due(self) -> bool:
        """Returns whether deliveries may be due. While there were some a moment ago, the claim itself finds out."""
        if not self._is_idle:
            return True
        async with self.database.read() as tx:
            return await tx.deliveries.has_due(self.clock())

    async def _take_of(
        self, tx: Transaction, endpoint: WebhookEndpoint, free: int, now: datetime
    ) -> Sequence[tuple[Delivery, WebhookEndpoint, float]]:
        """Claims deliveries of one endpoint, within its rate; returns each with its slot."""
        rate, slot, interval = rate_name(endpoint), 0.0, timedelta()
        if endpoint.max_per_second:
            interval = timedelta(seconds=1) / endpoint.max_per_second
            free = min(free, (_FARTHEST_SLOT - await tx.quota.wait(rate)) // interval + 1)
        if free <= 0:
            return []
        claimed = await tx.deliveries.claim(endpoint.id, now, lease=LEASE, limit=free)
        claimed = sorted(claimed, key=lambda one: (one.priority, one.position))
        if claimed and interval:
            slot = await tx.quota.reserve(rate, interval=interval, slots=len(claimed))
        seconds = interval.total_seconds()
        return [(one, endpoint, slot + place * seconds) for place, one in enumerate(claimed)]

    async def deliver(self, claim: DeliveryClaim) -> None:
        """Sends a claimed delivery, and records how that ended."""
        if (wait := claim.slot - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        begun_at = self.clock()
        answer = await self._send(claim, begun_at)
        DELIVERIES.labels("delivered" if answer.fault is None else answer.fault.value).inc()
        DELIVERY_SECONDS.observe(answer.duration_ms / 1000)
        await self._record(_Outcome(claim, answer, begun_at))

    async def hand_back(self, claims: Collection[DeliveryClaim]) -> None:
        """Releases claims, so the next worker sends them at once. Their receivers may get them twice."""
        async with self.database.write() as tx:
            await tx.deliveries.hand_back([claim.delivery for claim in claims], self.clock())

    async def remove_old_answers(self) -> None:
        """Removes the answers of receivers after their retention, in short transactions."""
        removed = _BATCH
        while removed == _BATCH:
            async with self.database.write() as tx:
                removed = await tx.delivery_log.remove_heads(self.clock() - HEAD_RETENTION, limit=_BATCH)

    async def _send(self, claim: DeliveryClaim, now: datetime) -> Answer:
        message = body(claim.event)
        try:
            signing = self.secrets.open(claim.endpoint, now)
        except TamperedDataError:
            detail = "The URL or the secret was changed in the database."
            return Answer(duration_ms=0, fault=Fault.ALTERED, detail=detail)
        headers = signed_headers(signing, claim.event.public_id, now, message)
        return await self.client.send(Receiver.parse(claim.endpoint.url), headers, message)

    async def _record_batch(self, outcomes: Sequence[_Outcome]) -> Sequence[None]:
        now = self.clock()
        async with self.database.write() as tx:
            known = await tx.webhook_endpoints.lock(sorted({each.claim.endpoint.id for each in outcomes}))
            endpoints = {endpoint.id: endpoint for endpoint in known}
            rows = {row.id: row for row in await tx.deliveries.lock([each.claim.delivery.id for each in outcomes])}
            # Only the newest claim may write.
            held = [each for each in outcomes if _is_held(each.claim, rows.get(each.claim.delivery.id))]
            ends = [_end(each, rows, endpoints, now) for each in held]
            await tx.deliveries.save_all(ends)
            await tx.deliveries.put_off_followers([end for end in ends if end.state is DeliveryState.PENDING])
            await tx.deliveries.add_attempts(
                [attempt_of(each.claim.delivery, each.claim.endpoint, each.answer, each.begun_at) for each in held]
            )
            for before in known:
                await self._save(tx, before, endpoints[before.id], now)
        return [None] * len(outcomes)

    async def _save(self, tx: Transaction, before: WebhookEndpoint, end: WebhookEndpoint, now: datetime) -> None:
        await tx.webhook_endpoints.save(before, end)
        if event := state_event(before, end, now):
            await tx.events.add_all([event])
        if end.state is not before.state:
            report = log.info if end.state is EndpointState.ENABLED else log.warning
            report("webhook_endpoint", endpoint=end.id, host=end.host, step=end.state, fault=end.last_fault)


def _is_held(claim: DeliveryClaim, row: Delivery | None) -> bool:
    return row is not None and row.claim == claim.delivery.claim and row.state is DeliveryState.PENDING


def _end(
    outcome: _Outcome, rows: Mapping[int, Delivery], endpoints: dict[str, WebhookEndpoint], now: datetime
) -> Delivery:
    """Returns the delivery after its attempt, and replaces its endpoint."""
    row, chance = rows[outcome.claim.delivery.id], secrets.randbelow(_CHANCES) / _CHANCES
    end, endpoints[row.endpoint_id] = after(
        row, endpoints[row.endpoint_id], outcome.answer, begun_at=outcome.begun_at, now=now, chance=chance
    )
    return end
