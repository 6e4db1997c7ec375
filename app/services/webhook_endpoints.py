"""Webhook endpoints: clients manage the receivers of their events, and test them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from app.domain import webhook_endpoint as endpoints
from app.domain.api_key import Actor, Scope
from app.domain.audit import Action
from app.domain.deliveries import Answer
from app.domain.detection import Outcome
from app.domain.events import Event, EventType, body, new_public_id
from app.domain.listing import decode_endpoint_cursor, encode_endpoint_cursor
from app.domain.rate import RateClass
from app.domain.webhook_endpoint import MAX_PER_CLIENT, DisabledReason, EndpointState, WebhookEndpoint, rate_name
from app.errors import ConflictError
from app.sealing.endpoint_secrets import SecretCipher
from app.services.audit import AuditService
from app.services.limits import LimitService
from app.services.visibility import find_endpoint, lock_endpoint, require_client, require_scope
from app.storage.database import Database, Transaction
from app.storage.wakeups import DELIVERIES, Wakeups
from app.webhooks.client import Receiver, WebhookClient
from app.webhooks.signatures import new_secret, signed_headers

MAX_COUNTED = 10_000
"""Held events are counted up to this number."""

_BATCH = 1000


class Held(StrEnum):
    """The fate of held events when their endpoint is enabled."""

    SEND = "send"
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFacts:
    """The values of an endpoint that its client chooses. Empty sets select all events."""

    url: str
    events: frozenset[EventType] = frozenset()
    outcomes: frozenset[Outcome] = frozenset()
    rule_ids: frozenset[str] = frozenset()
    description: str | None = None
    max_per_second: int | None = None


@dataclass(frozen=True, slots=True)
class EndpointPage:
    """A page of endpoints; `next_cursor` is None on the last one."""

    endpoints: Sequence[WebhookEndpoint]
    next_cursor: str | None


@dataclass(kw_only=True, repr=False, eq=False)
class WebhookEndpointService:
    """Creates, lists, changes, tests and removes endpoints. A caller sees those of its client, an admin all.

    Each method raises ForbiddenError if the caller lacks the scope.
    """

    database: Database
    secrets: SecretCipher
    client: WebhookClient
    audit: AuditService
    limits: LimitService
    wakeups: Wakeups
    clock: Callable[[], datetime]

    async def create(
        self, actor: Actor, facts: EndpointFacts, *, client: str | None = None
    ) -> tuple[WebhookEndpoint, str]:
        """Creates an endpoint; returns it and its secret, which is shown only now.

        Args:
            actor: who creates it.
            facts: its values.
            client: whose events it receives; by default the caller's own.

        Raises:
            ConflictError: the client has as many endpoints as it may.
            ForbiddenError: the caller lacks the scope, or cannot see the client's verifications.
            InvalidRequestError: the URL is malformed, or leads to a forbidden address.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        require_scope(actor.caller, Scope.WEBHOOKS_MANAGE)
        self.limits.admit(actor.caller, RateClass.WEBHOOKS)
        require_client(actor.caller, client)
        await self.client.check(Receiver.parse(facts.url))
        now, secret = self.clock(), new_secret()
        values = {name: getattr(facts, name) for name in EndpointFacts.__slots__}
        endpoint = WebhookEndpoint(
            id=endpoints.new_id(),
            client=client or actor.caller.client,
            sealed_secret=b"",
            created_at=now,
            updated_at=now,
            **values,
        )
        endpoint = replace(endpoint, sealed_secret=self.secrets.seal(endpoint, secret))
        async with self.database.write() as tx:
            if not await tx.webhook_endpoints.add(endpoint, at_most=MAX_PER_CLIENT):
                raise ConflictError(f"The client has {MAX_PER_CLIENT} endpoints already. Delete one.")
            await self._record(tx, actor, Action.WEBHOOK_CREATED, endpoint)
        return endpoint, secret

    async def list(
        self, actor: Actor, *, client: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> EndpointPage:
        """Returns a page of endpoints: of the caller's client, for an admin of all or of one.

        Raises:
            ForbiddenError: the caller cannot see the client's verifications.
            InvalidRequestError: the cursor is invalid.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        require_scope(actor.caller, Scope.WEBHOOKS_MANAGE)
        self.limits.admit(actor.caller, RateClass.LISTS)
        require_client(actor.caller, client)
        after_id = decode_endpoint_cursor(cursor) if cursor else ""
        async with self.database.read() as tx:
            found = await tx.webhook_endpoints.list(
                client or actor.caller.visible_client, limit=limit + 1, after_id=after_id
            )
        is_last = len(found) <= limit
        return EndpointPage(found[:limit], None if is_last else encode_endpoint_cursor(found[limit - 1].id))

    async def get(self, actor: Actor, endpoint_id: str) -> WebhookEndpoint:
        """Returns an endpoint.

        Raises:
            NotFoundError: it does not exist, or it belongs to another client.
        """
        async with self.database.read() as tx:
            return await find_endpoint(tx, actor.caller, endpoint_id)

    async def change(
        self,
        actor: Actor,
        endpoint_id: str,
        changes: Mapping[str, Any],
        *,
        state: EndpointState | None = None,
        held: Held | None = None,
    ) -> WebhookEndpoint:
        """Changes an endpoint. Another URL ends a pause.

        Args:
            actor: who changes it.
            endpoint_id: its id.
            changes: the new values, by their names in `EndpointFacts`.
            state: `ENABLED` lets deliveries continue, `DISABLED` stops them until then; None changes neither.
            held: what becomes of the events that a disabled endpoint has held. Required if there are any.

        Raises:
            ConflictError: events are held, and the request does not say what becomes of them.
            InvalidRequestError: the URL is malformed, or leads to a forbidden address.
            NotFoundError: it does not exist, or it belongs to another client.
            TamperedDataError: the secret cannot be opened, so it cannot be bound to another URL.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        self.limits.admit(actor.caller, RateClass.WEBHOOKS)
        if "url" in changes:
            await self.client.check(Receiver.parse(changes["url"]))
        is_enabled = state is EndpointState.ENABLED
        if is_enabled:
            await self._settle_held(actor, endpoint_id, held)
        now = self.clock()
        async with self.database.write() as tx:
            before = await lock_endpoint(tx, actor.caller, endpoint_id)
            after = replace(before, **changes, updated_at=now)
            if after.url != before.url:
                after = replace(self.secrets.moved(before, after, now), pauses=0, paused_until=None)
            if state is EndpointState.DISABLED:
                after = endpoints.disabled(after, DisabledReason.REQUESTED, now)
            elif is_enabled and before.state is not EndpointState.ENABLED:
                after = endpoints.enabled(after)
                await tx.delivery_log.bring_forward(before.id, now)
            await tx.webhook_endpoints.save(before, after)
            names = [*sorted(changes), *(["state"] if state else [])]
            await self._record(tx, actor, Action.WEBHOOK_CHANGED, after, *names)
        self.wakeups.send(DELIVERIES)
        return after

    async def _settle_held(self, actor: Actor, endpoint_id: str, held: Held | None) -> None:
        """Drops the held events of a disabled endpoint if the caller wants that."""
        async with self.database.read() as tx:
            endpoint = await find_endpoint(tx, actor.caller, endpoint_id)
            if endpoint.state is not EndpointState.DISABLED:
                return
            count = await tx.delivery_log.count_pending(endpoint_id, at_most=MAX_COUNTED)
        if count and held is None:
            number = f"{count}" if count < MAX_COUNTED else f"At least {count}"
            raise ConflictError(
                f"{number} events are held. Add `held`: `send` delivers them, `drop` does not.", code="held_events"
            )
        dropped = _BATCH if held is Held.DROP else 0
        while dropped == _BATCH:
            async with self.database.write() as tx:
                dropped = await tx.delivery_log.drop(endpoint_id, self.clock(), limit=_BATCH)

    async def rotate(self, actor: Actor, endpoint_id: str, *, keep_for: timedelta) -> tuple[WebhookEndpoint, str]:
        """Replaces the secret; returns the endpoint and the new one. The secret until now signs for `keep_for` longer.

        Raises:
            NotFoundError: it does not exist, or it belongs to another client.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        self.limits.admit(actor.caller, RateClass.WEBHOOKS)
        secret = new_secret()
        async with self.database.write() as tx:
            before = await lock_endpoint(tx, actor.caller, endpoint_id)
            after = endpoints.rotated(before, self.secrets.seal(before, secret), keep_for, self.clock())
            await tx.webhook_endpoints.save(before, after)
            await self._record(tx, actor, Action.WEBHOOK_ROTATED, after)
        return after, secret

    async def delete(self, actor: Actor, endpoint_id: str) -> None:
        """Removes an endpoint with everything that belongs to it.

        Raises:
            NotFoundError: it does not exist, or it belongs to another client.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        self.limits.admit(actor.caller, RateClass.WEBHOOKS)
        async with self.database.write() as tx:
            known = await lock_endpoint(tx, actor.caller, endpoint_id)
            await tx.webhook_endpoints.save(known, endpoints.disabled(known, DisabledReason.REQUESTED, self.clock()))
        removed = _BATCH
        while removed == _BATCH:
            async with self.database.write() as tx:
                removed = await tx.delivery_log.remove_of_endpoint(endpoint_id, limit=_BATCH)
        async with self.database.write() as tx:
            await tx.webhook_endpoints.remove(endpoint_id)
            await tx.quota.remove(rate_name(known))
            await self._record(tx, actor, Action.WEBHOOK_DELETED, known)

    async def test(self, actor: Actor, endpoint_id: str, kind: EventType) -> Answer:
        """Sends an event of this type that is marked as a test, and returns how that ended, within 15 s.

        Raises:
            NotFoundError: it does not exist, or it belongs to another client.
            TamperedDataError: the secret cannot be opened.
            TooManyRequestsError: the caller has exceeded its rate.
            TooManyWaitsError: the caller, or the process, holds too many waits.
        """
        self.limits.admit(actor.caller, RateClass.WEBHOOKS)
        endpoint = await self.get(actor, endpoint_id)
        now = self.clock()
        event = _test_event(endpoint, kind, now)
        message = body(event)
        headers = signed_headers(self.secrets.open(endpoint, now), event.public_id, now, message)
        with self.limits.waiting(actor.caller):
            return await self.client.send(Receiver.parse(endpoint.url), headers, message)

    async def _record(
        self, tx: Transaction, actor: Actor, action: Action, endpoint: WebhookEndpoint, *names: str
    ) -> None:
        await self.audit.record(tx, self.audit.describe(actor, action, subject=endpoint.id, fields=names))


def _test_event(endpoint: WebhookEndpoint, kind: EventType, now: datetime) -> Event:
    """Returns an event like a real one, about a token that does not exist."""
    public_id = new_public_id()
    details = {"test": True, "endpoint_id": endpoint.id, "client": endpoint.client}
    if kind.startswith("verification."):
        details |= {"biz_token": public_id.replace("evt_", "test-"), "rule_id": "1", "revision": 1}
    return Event(public_id=public_id, type=kind, client=endpoint.client, at=now, details=json.dumps(details))
