"""The JSON of events, and the filters of the change feed and the stream."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.domain.detection import Outcome
from app.domain.events import EventFilter, EventType
from app.domain.verification import State
from app.routers.schemas import BizToken, Instant, Line

_MAX_POSITION = 2**63 - 1


def _separated(value: object) -> object:
    """Splits values at commas. They may be repeated as well."""
    values = value if isinstance(value, list) else [value]
    return [part for text in values if isinstance(text, str) for part in text.split(",")]


EventTypes = Annotated[list[EventType], BeforeValidator(_separated)]


Position = Annotated[int, Field(ge=0, le=_MAX_POSITION)]


class StreamFilters(BaseModel):
    """The filters of the stream."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    after: Position | None = Field(default=None, description="The position of the last known event.")
    types: EventTypes = Field(default_factory=list, max_length=20)
    client: Line | None = None

    def filter(self) -> EventFilter:
        """Returns the filters as a domain value."""
        return EventFilter(client=self.client, types=tuple(self.types))


class EventFilters(BaseModel):
    """The filters of the change feed, and its page."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    after: Position = Field(default=0, description="The position of the last known event; 0 for the oldest kept.")
    types: EventTypes = Field(
        default_factory=list, max_length=20, description="Any of these types, separated by commas or repeated."
    )
    biz_token: BizToken | None = Field(default=None, description="The events of one verification.")
    client: Line | None = Field(default=None, description="The client whose events are listed; for admins.")
    limit: int = Field(default=100, ge=1, le=500)
    wait: float = Field(default=0, ge=0, le=60, description="Seconds to wait while there is no event.")

    def filter(self) -> EventFilter:
        """Returns the filters as a domain value."""
        return EventFilter(client=self.client, types=tuple(self.types), biz_token=self.biz_token)


class VerificationChange(BaseModel):
    """A verification after the change. Read the rest at `href`."""

    biz_token: str
    rule_id: str
    subject_ref: str | None
    client: str
    state: State
    outcome: Outcome | None
    provisional: bool
    err_code: int | None
    revision: int = Field(description="Numbers the events of the verification. Ignore an event with a smaller one.")
    href: str


class EventView(BaseModel):
    """One event, as webhooks send it. Ignore types and fields that you do not know."""

    id: str = Field(
        description="The same wherever the event is reported.", examples=["evt_9f86d081884c7d659a2feaa0c55a"]
    )
    type: EventType
    timestamp: Instant
    data: VerificationChange | Mapping[str, object]


class EventPageView(BaseModel):
    """Events in order. The next page begins behind `next_after`."""

    items: list[EventView]
    next_after: int
