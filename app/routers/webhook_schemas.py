"""The JSON of webhook endpoints."""

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from app.domain.deliveries import Answer, Fault
from app.domain.detection import Outcome
from app.domain.events import EventType
from app.domain.webhook_endpoint import MAX_KEEP, DisabledReason, EndpointState, WebhookEndpoint
from app.routers.schemas import Instant, Line, RuleId
from app.services.webhook_endpoints import EndpointFacts, EndpointPage, Held

ENDPOINT_PATTERN = r"^we_[0-9a-f]{24}$"
DELIVERY_PREFIX = "dlv_"
DELIVERY_PATTERN = r"^dlv_[1-9][0-9]{0,17}$"
SPAN_PATTERN = r"^[0-9]{1,6}[smhd]$"
PATTERN_WORDS = {
    ENDPOINT_PATTERN: "must be the id of a webhook endpoint, like we_0123456789abcdef01234567",
    DELIVERY_PATTERN: "must be the id of a delivery, like dlv_4711",
    SPAN_PATTERN: "must be a number and one of s, m, h and d, like 24h",
}
"""The limits of texts in words, to be put after the name of a field."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_MAX_VALUES = 20


def delivery_number(text: str) -> int:
    """Returns the number of a delivery's id."""
    return int(text.removeprefix(DELIVERY_PREFIX))


def _span(text: str) -> timedelta:
    return timedelta(**{_UNITS[text[-1]]: int(text[:-1])})


def _short(text: str) -> str:
    if _span(text) > MAX_KEEP:
        raise PydanticCustomError("span", "must be at most 7d")
    return text


Url = Annotated[str, Field(max_length=2048, examples=["https://shop.example/hooks/faceid"])]
EndpointId = Annotated[str, Field(pattern=ENDPOINT_PATTERN, examples=["we_0123456789abcdef01234567"])]
DeliveryId = Annotated[str, Field(pattern=DELIVERY_PATTERN, examples=["dlv_4711"])]
Types = Annotated[list[EventType], Field(max_length=_MAX_VALUES, description="Only these types; empty for all.")]
Outcomes = Annotated[list[Outcome], Field(max_length=_MAX_VALUES, description="Only these outcomes; empty for all.")]
RuleIds = Annotated[list[RuleId], Field(max_length=_MAX_VALUES, description="Only these rules; empty for all.")]
PerSecond = Annotated[
    int | None, Field(ge=1, le=1000, description="The most deliveries per second; null for no limit.")
]
Sorted = BeforeValidator(sorted)


class EndpointCreation(BaseModel):
    """A new endpoint. Its client is the one of the key, unless an admin names another."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: Url
    events: Types = []
    outcomes: Outcomes = []
    rule_ids: RuleIds = []
    description: Line | None = None
    max_per_second: PerSecond = None
    client: Line | None = Field(default=None, description="The client whose events are sent; for admins.")

    def facts(self) -> EndpointFacts:
        """Returns the values as a service value."""
        return EndpointFacts(
            url=self.url,
            events=frozenset(self.events),
            outcomes=frozenset(self.outcomes),
            rule_ids=frozenset(self.rule_ids),
            description=self.description,
            max_per_second=self.max_per_second,
        )


class EndpointChange(BaseModel):
    """The values to change; the others stay. `state` enables or disables the endpoint."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: Url | None = None
    events: Types | None = None
    outcomes: Outcomes | None = None
    rule_ids: RuleIds | None = None
    description: Line | None = None
    max_per_second: PerSecond = None
    state: Literal[EndpointState.ENABLED, EndpointState.DISABLED] | None = None
    held: Held | None = Field(
        default=None, description="With `enabled`: whether to `send` or `drop` held events. Required if there are any."
    )

    def changes(self) -> dict[str, Any]:
        """Returns the stated values by their names in `EndpointFacts`. Only two of them can be null."""
        stated = {name: getattr(self, name) for name in self.model_fields_set - {"state", "held"}}
        lists = {name: frozenset(value) for name, value in stated.items() if isinstance(value, list)}
        nullable = {"description", "max_per_second"}
        return {name: value for name, value in (stated | lists).items() if value is not None or name in nullable}


class Rotation(BaseModel):
    """How long the earlier secret still signs: 0s to 7d."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    keep_for: Annotated[str, Field(pattern=SPAN_PATTERN, examples=["24h"]), AfterValidator(_short)] = "24h"

    def span(self) -> timedelta:
        """Returns the span."""
        return _span(self.keep_for)


class EndpointView(BaseModel):
    """A webhook endpoint. `url` is null in lists, because a path may contain secrets."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    client: str
    url: str | None
    host: str
    description: str | None
    events: Annotated[list[EventType], Sorted]
    outcomes: Annotated[list[Outcome], Sorted]
    rule_ids: Annotated[list[str], Sorted]
    max_per_second: int | None
    state: EndpointState = Field(
        description="`failing` after three failures in a row or a quarter of an hour of failures: still tried. "
        "`disabled`: events are held until it is enabled."
    )
    disabled_reason: DisabledReason | None = Field(
        description="`requested`, `failing` (five days without a success) or `gone` (it answered 410)."
    )
    disabled_at: Instant | None
    failing_since: Instant | None
    last_success_at: Instant | None = Field(description="To the minute while nothing fails.")
    last_failure_at: Instant | None
    last_error: str | None = Field(description="Like `timeout`, or `http_status:503`.")
    paused_until: Instant | None = Field(description="Nothing is sent until then.")
    previous_secret_until: Instant | None = Field(description="The earlier secret signs as well until then.")
    created_at: Instant
    updated_at: Instant

    @classmethod
    def of(cls, endpoint: WebhookEndpoint, *, shows_url: bool = True, **further: object) -> Self:
        """Converts the domain value."""
        names = {"url", "host", "last_error", "previous_secret_until"} | further.keys()
        values = {name: getattr(endpoint, name) for name in cls.model_fields if name not in names}
        return cls(
            url=endpoint.url if shows_url else None,
            host=endpoint.host,
            last_error=endpoint.last_fault,
            previous_secret_until=endpoint.previous_until,
            **values,
            **further,
        )


class EndpointDetails(EndpointView):
    """A webhook endpoint, and how many events wait for it."""

    pending_count: int = Field(description="Events that wait or, if it is disabled, are held; at most 10,000.")


class EndpointWithSecret(EndpointView):
    """A webhook endpoint with its secret, which no other answer contains."""

    secret: str = Field(description="`whsec_` and the base64 of 32 bytes. Store it now.")


class EndpointPageView(BaseModel):
    """A page of endpoints; `next_cursor` is null on the last one."""

    items: list[EndpointView]
    next_cursor: str | None

    @classmethod
    def of(cls, page: EndpointPage) -> Self:
        """Converts a page of the services."""
        items = [EndpointView.of(endpoint, shows_url=False) for endpoint in page.endpoints]
        return cls(items=items, next_cursor=page.next_cursor)


class EndpointTest(BaseModel):
    """The type of the event that is sent as a test."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    type: EventType = EventType.TEST


class EndpointTestResult(BaseModel):
    """The end of a test: an HTTP status, or an error before one. `error` is null after a 2xx."""

    status: int | None
    duration_ms: int
    error: Fault | None
    detail: str | None
    response_head: str | None = Field(description="The first 2,048 characters of the answer.")

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """Converts the domain value."""
        return cls(
            status=answer.status,
            duration_ms=answer.duration_ms,
            error=answer.fault,
            detail=answer.detail,
            response_head=answer.head,
        )
