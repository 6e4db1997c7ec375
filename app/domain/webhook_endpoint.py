"""Webhook endpoints: the receivers of a client, the events that each wants, and what an admin may change."""

import json
import secrets
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import urlsplit

from app.domain.detection import Outcome
from app.domain.events import Event, EventType

ENDPOINT_PREFIX = "we_"

MAX_PER_CLIENT = 20
"""How many endpoints a client may have."""

MAX_KEEP = timedelta(days=7)
"""How long an earlier secret may sign beside the new one."""

MAX_CONCURRENCY = 4
"""How many deliveries to one endpoint are in flight at a time."""

_ABOUT_ENDPOINTS = {EventType.ENDPOINT_FAILING, EventType.ENDPOINT_DISABLED}


class EndpointState(StrEnum):
    """The state of an endpoint. A failing one is still tried; the events of a disabled one are held."""

    ENABLED = "enabled"
    FAILING = "failing"
    DISABLED = "disabled"


class DisabledReason(StrEnum):
    """Why an endpoint is disabled: by a request, after days without a success, or because it answered 410."""

    REQUESTED = "requested"
    FAILING = "failing"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEndpoint:
    """An endpoint as stored. Empty sets select all events.

    The key ring seals the secrets, bound to the id, the client and the URL. Events that are not about a verification
    have neither an outcome nor a rule, and are selected by their type only.

    `failures` counts the failures since the last success, and the first of them was at `failing_since`. `pauses` counts
    the pauses since then; nothing is sent before `paused_until`, and at most `concurrency` deliveries are in flight.
    """

    id: str
    client: str
    url: str = field(repr=False)
    description: str | None = None
    events: frozenset[EventType] = frozenset()
    outcomes: frozenset[Outcome] = frozenset()
    rule_ids: frozenset[str] = frozenset()
    max_per_second: int | None = None
    sealed_secret: bytes = field(repr=False)
    previous_secret: bytes | None = field(default=None, repr=False)
    previous_until: datetime | None = None
    state: EndpointState = EndpointState.ENABLED
    disabled_reason: DisabledReason | None = None
    disabled_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    failures: int = 0
    failing_since: datetime | None = None
    last_success_at: datetime | None = None
    last_failure_at: datetime | None = None
    last_fault: str | None = None
    pauses: int = 0
    paused_until: datetime | None = None
    concurrency: int = MAX_CONCURRENCY

    @property
    def bound_values(self) -> tuple[str, ...]:
        """Associated data of the secrets. Changing one of these in the database stops all deliveries."""
        return "webhook_endpoint", self.id, self.client, self.url

    @property
    def host(self) -> str:
        """The host of the URL, whose other parts may contain secrets."""
        return urlsplit(self.url).hostname or ""

    @property
    def is_paused(self) -> bool:
        """Whether the last attempt paused the endpoint. It stays so until a success, also after the pause."""
        return self.paused_until is not None

    def wants(self, event: Event) -> bool:
        """Returns whether an event of its client is to be sent to the endpoint."""
        if self.events and event.type not in self.events:
            return False
        if event.verification_id is None:
            return event.type not in _ABOUT_ENDPOINTS or json.loads(event.details or "{}").get("id") != self.id
        has_outcome = not self.outcomes or event.outcome in self.outcomes
        return has_outcome and (not self.rule_ids or event.rule_id in self.rule_ids)

    def has_previous_secret(self, now: datetime) -> bool:
        """Returns whether the earlier secret still signs."""
        return self.previous_secret is not None and self.previous_until is not None and now < self.previous_until


def new_id() -> str:
    """Returns a new random id."""
    return f"{ENDPOINT_PREFIX}{secrets.token_hex(12)}"


def rate_name(endpoint: WebhookEndpoint) -> str:
    """Returns the name of the endpoint's rate among the quotas."""
    return f"webhook:{endpoint.id}"


def rotated(endpoint: WebhookEndpoint, sealed_secret: bytes, keep_for: timedelta, now: datetime) -> WebhookEndpoint:
    """Replaces the secret. The one until now signs for `keep_for` longer; an earlier one ends at once."""
    return replace(
        endpoint,
        sealed_secret=sealed_secret,
        previous_secret=endpoint.sealed_secret if keep_for else None,
        previous_until=now + keep_for if keep_for else None,
        updated_at=now,
    )


def disabled(endpoint: WebhookEndpoint, reason: DisabledReason, now: datetime) -> WebhookEndpoint:
    """Stops deliveries. Events are held from now on."""
    if endpoint.state is EndpointState.DISABLED:
        return endpoint
    return replace(endpoint, state=EndpointState.DISABLED, disabled_reason=reason, disabled_at=now)


def enabled(endpoint: WebhookEndpoint) -> WebhookEndpoint:
    """Lets deliveries continue, with one at first, as if the endpoint had never failed."""
    return replace(
        endpoint,
        state=EndpointState.ENABLED,
        disabled_reason=None,
        disabled_at=None,
        failures=0,
        failing_since=None,
        pauses=0,
        paused_until=None,
        concurrency=1,
    )
