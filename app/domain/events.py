"""Events: what changed for a reader of a verification. Webhooks, the stream and the change feed report them."""

import json
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from app.domain.detection import Outcome
from app.domain.verification import State, Verification

EVENT_RETENTION = timedelta(days=30)
"""How long events are kept."""

EXPIRY_NOTICE = timedelta(hours=24)
"""How long before its deadline a pending verification is reported as expiring."""

_SEEN = ("rule_id", "subject_ref", "state", "outcome", "provisional", "err_code")


class EventType(StrEnum):
    """The kind of an event. Receivers ignore types that they do not know, so later versions may add some."""

    RETRIEVED = "verification.retrieved"
    UPDATED = "verification.updated"
    FAILED = "verification.failed"
    EXPIRED = "verification.expired"
    ERASED = "verification.erased"
    EXPIRING = "verification.expiring"
    ENDPOINT_FAILING = "webhook_endpoint.failing"
    ENDPOINT_DISABLED = "webhook_endpoint.disabled"
    TEST = "test"


_BY_STATE = {
    State.PENDING: EventType.UPDATED,
    State.RETRIEVED: EventType.RETRIEVED,
    State.FAILED: EventType.FAILED,
    State.EXPIRED: EventType.EXPIRED,
    State.ERASED: EventType.ERASED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event. `id` is 0 until the database assigns one, `position` None until the event has its place in the order.

    `public_id` is random and the same wherever the event is reported. `revision` numbers the events of a verification
    from 1 on. The other values of the verification are those after the change; an erasure removes all of them except
    the token, the rule, the state and the revision.

    An event about something else has no verification. Its `details` are the JSON object of its `data`.
    """

    id: int = 0
    public_id: str
    position: int | None = None
    type: EventType
    client: str
    at: datetime
    verification_id: int | None = None
    biz_token: str | None = None
    rule_id: str | None = None
    subject_ref: str | None = None
    state: State | None = None
    outcome: Outcome | None = None
    provisional: bool = False
    err_code: int | None = None
    revision: int | None = None
    details: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """The events that a reader wants; None or empty for all of them."""

    client: str | None = None
    types: tuple[EventType, ...] = ()
    biz_token: str | None = None


def new_public_id() -> str:
    """Returns a new random id of an event."""
    return f"evt_{secrets.token_hex(16)}"


def change_of(before: Verification, after: Verification) -> EventType | None:
    """Returns the event that a change of a verification is, or None.

    Until a verification is settled for the first time there is nothing that a receiver knows and that could change.
    """
    if after.state is not before.state:
        return _BY_STATE[after.state]
    if after.is_expiry_announced and not before.is_expiry_announced:
        return EventType.EXPIRING
    if after.state in {State.PENDING, State.ERASED}:
        return None
    is_new_result = after.revision != before.revision
    is_seen = any(getattr(after, name) != getattr(before, name) for name in _SEEN)
    return EventType.UPDATED if is_new_result or is_seen else None


def describe(kind: EventType, verification: Verification, at: datetime) -> Event:
    """Returns a new event about a verification after the change, with the number of its events as the revision."""
    return Event(
        public_id=new_public_id(),
        type=kind,
        client=verification.client,
        at=at,
        verification_id=verification.id,
        biz_token=verification.biz_token,
        rule_id=verification.rule_id,
        subject_ref=verification.subject_ref,
        state=verification.state,
        outcome=verification.outcome,
        provisional=verification.provisional,
        err_code=verification.err_code,
        revision=verification.event_count,
    )


def matches(wanted: EventFilter, event: Event) -> bool:
    """Returns whether the filter selects an event."""
    return (
        wanted.client in {None, event.client}
        and (not wanted.types or event.type in wanted.types)
        and wanted.biz_token in {None, event.biz_token}
    )


def forgotten(event: Event) -> Event:
    """Returns an event of a verification that was erased since, without the reference and the verdict."""
    return replace(event, subject_ref=None, outcome=None, provisional=False, err_code=None)


def frame(event: Event) -> bytes:
    """Returns an event with its position as a server-sent event."""
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.position or 0, event.type.encode(), body(event))


def body(event: Event) -> bytes:
    """Returns the JSON of an event, in one line. Every report of the event has the same bytes until an erasure."""
    content = {
        "id": event.public_id,
        "type": event.type,
        "timestamp": event.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": _data(event) if event.details is None else json.loads(event.details),
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _data(event: Event) -> dict[str, object]:
    return {
        "biz_token": event.biz_token,
        "rule_id": event.rule_id,
        "subject_ref": event.subject_ref,
        "client": event.client,
        "state": event.state,
        "outcome": event.outcome,
        "provisional": event.provisional,
        "err_code": event.err_code,
        "revision": event.revision,
        "href": f"/v1/verifications/{event.biz_token}",
    }
