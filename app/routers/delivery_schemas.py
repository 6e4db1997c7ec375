"""The JSON of deliveries."""

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from app.domain.deliveries import Attempt, DeliveryFilter, DeliveryState, Fault, ReplayKind
from app.domain.events import EventType
from app.routers.schemas import Instant, Moment, Several
from app.routers.webhook_schemas import DELIVERY_PREFIX
from app.services.deliveries import DeliveryPage, DeliveryRecord, Replay

_MAX_VALUES = 20


class DeliveryStanding(StrEnum):
    """The state of a delivery as callers see it. One that is pending for a disabled endpoint is held."""

    PENDING = "pending"
    HELD = "held"
    DELIVERED = "delivered"
    FAILED = "failed"
    DROPPED = "dropped"


class DeliveryFilters(BaseModel):
    """The filters of a list of deliveries, and its page."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    state: Several[DeliveryStanding] = Field(
        default_factory=list,
        max_length=_MAX_VALUES,
        description="Any of these states. `pending` and `held` select the same deliveries.",
    )
    type: Several[EventType] = Field(default_factory=list, max_length=_MAX_VALUES, description="Any of these types.")
    happened_from: Moment | None = Field(default=None, alias="from", description="Events at this instant or later.")
    happened_to: Moment | None = Field(default=None, alias="to", description="Events before this instant.")
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str | None, Field(max_length=64)] = None

    def filter(self, endpoint_id: str) -> DeliveryFilter:
        """Returns the filters as a domain value."""
        stored = ["pending" if state is DeliveryStanding.HELD else state.value for state in self.state]
        return DeliveryFilter(
            endpoint_id=endpoint_id,
            states=tuple(map(DeliveryState, dict.fromkeys(stored))),
            types=tuple(self.type),
            start=self.happened_from,
            end=self.happened_to,
        )


class AttemptView(BaseModel):
    """One attempt, with the host of the URL as it was then. `error` is null after a 2xx."""

    at: Instant
    host: str
    address: str | None
    duration_ms: int
    status: int | None
    error: Fault | None
    detail: str | None
    response_head: str | None = Field(description="The first 2,048 characters of the answer, for seven days.")

    @classmethod
    def of(cls, attempt: Attempt) -> Self:
        """Converts the domain value."""
        return cls(
            at=attempt.at,
            host=attempt.host,
            address=attempt.address,
            duration_ms=attempt.duration_ms,
            status=attempt.status,
            error=attempt.fault,
            detail=attempt.detail,
            response_head=attempt.head,
        )


class DeliveryView(BaseModel):
    """One event for one endpoint."""

    id: str
    endpoint_id: str
    event_id: str = Field(description="The value of `webhook-id`, the same in each attempt and for each endpoint.")
    type: EventType
    biz_token: str | None
    revision: int | None
    state: DeliveryStanding
    due_at: Instant | None = Field(description="The time of the next attempt.")
    created_at: Instant
    ended_at: Instant | None
    attempt_count: int
    attempts: list[AttemptView] = Field(description="The last 20 attempts, oldest first.")

    @classmethod
    def of(cls, record: DeliveryRecord) -> Self:
        """Converts the service value."""
        delivery, event = record.delivery, record.event
        return cls(
            id=f"{DELIVERY_PREFIX}{delivery.id}",
            endpoint_id=delivery.endpoint_id,
            event_id=event.public_id,
            type=event.type,
            biz_token=event.biz_token,
            revision=event.revision,
            state=DeliveryStanding.HELD if record.is_held else DeliveryStanding(delivery.state.value),
            due_at=None if record.is_held else delivery.due_at,
            created_at=delivery.created_at,
            ended_at=delivery.ended_at,
            attempt_count=delivery.attempts,
            attempts=[AttemptView.of(attempt) for attempt in record.attempts],
        )


class DeliveryPageView(BaseModel):
    """A page of deliveries; `next_cursor` is null on the last one."""

    items: list[DeliveryView]
    next_cursor: str | None

    @classmethod
    def of(cls, page: DeliveryPage) -> Self:
        """Converts a page of the services."""
        return cls(items=[DeliveryView.of(record) for record in page.records], next_cursor=page.next_cursor)


class ReplayWanted(BaseModel):
    """The events to send again: those that failed or were dropped, those without a delivery, or all."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    happened_from: Moment = Field(alias="from", description="Events at this instant or later.")
    happened_to: Moment = Field(alias="to", description="Events before this instant.")
    which: ReplayKind
    events: list[EventType] = Field(default_factory=list, max_length=_MAX_VALUES, description="Only these types.")
    dry_run: bool = False

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of the service."""
        return {
            "start": self.happened_from,
            "end": self.happened_to,
            "types": frozenset(self.events),
            "is_dry_run": self.dry_run,
        }


class ReplayView(BaseModel):
    """A replay. `has_more`: further events did not fit; ask again from the newest one on."""

    id: str
    count: int
    oldest_at: Instant | None
    has_more: bool

    @classmethod
    def of(cls, replay: Replay) -> Self:
        """Converts the service value."""
        return cls(id=replay.id, count=replay.count, oldest_at=replay.oldest_at, has_more=replay.has_more)
