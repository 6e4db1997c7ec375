"""The JSON of the API: snake_case, numbers and instants typed, absent is null and never a missing key.

Callbacks may use Tencent's spelling as well: `BizToken`, `RuleId`, `Extra`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import PydanticKnownError

from app.domain.audit import Action, Event
from app.domain.detection import Detection, MediaKind, Medium, Outcome
from app.domain.verification import SPELLING, Facts, Filter, Result, State, Verification
from app.services.query import Person

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 30, tzinfo=UTC)
_SKEW = timedelta(minutes=5)  # another machine's clock


def _past(value: datetime) -> datetime:
    if value > datetime.now(UTC) + _SKEW:
        raise PydanticKnownError("datetime_past")
    return value


def _written_out(value: object) -> object:
    """Numbers are refused: pydantic would guess whether they count seconds or milliseconds."""
    if not isinstance(value, str) or ":" not in value:
        raise PydanticKnownError("datetime_type")
    return value


def _in_utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


def _from_header(value: str) -> str:
    """Headers are bytes, which the server reads as Latin-1; people write UTF-8 in them."""
    return value.encode("latin-1").decode()


def _rfc3339(value: datetime) -> str:
    text = value.isoformat().removesuffix("+00:00")  # all instants of the domain are in UTC
    return (text.rstrip("0") if value.microsecond else text) + "Z"


BizToken = Annotated[str, Field(pattern=SPELLING, examples=["CE661F1A-0F1E-45BD-BE13-34C05CEA7681"])]
RuleId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", examples=["1"])]
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,256}$")]
Text = Annotated[str, Field(pattern=r"^[^\x00]{0,2048}$")]
HeaderLine = Annotated[Line, BeforeValidator(_from_header)]
Moment = Annotated[AwareDatetime, Field(ge=_EPOCH, le=_LAST), BeforeValidator(_written_out), AfterValidator(_in_utc)]
Instant = Annotated[
    datetime, PlainSerializer(_rfc3339), WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization")
]


class Readiness(BaseModel):
    """That the service is up, and what an operator should look after."""

    status: str
    warnings: list[str]


class Registration(BaseModel):
    """What may be told of a token when DetectAuth returned it; all of it is optional."""

    model_config = ConfigDict(extra="forbid")

    rule_id: RuleId | None = None
    subject_ref: Line | None = Field(default=None, description="Your own name for the case; no personal data.")
    created_at: Annotated[Moment, AfterValidator(_past)] | None = Field(
        default=None, description="When DetectAuth returned the token: makes the deadline exact."
    )
    purpose: Line | None = None

    def facts(self) -> Facts:
        """As a value of the domain."""
        return Facts(
            rule_id=self.rule_id, subject_ref=self.subject_ref, created_at=self.created_at, purpose=self.purpose
        )


class Callback(BaseModel):
    """Verification complete. Every field in Tencent's spelling or in snake_case."""

    model_config = ConfigDict(extra="forbid")

    biz_token: BizToken = Field(validation_alias=AliasChoices("BizToken", "biz_token"))
    rule_id: RuleId | None = Field(default=None, validation_alias=AliasChoices("RuleId", "rule_id"))
    extra: Text | None = Field(default=None, validation_alias=AliasChoices("Extra", "extra"))


class RedirectWanted(BaseModel):
    """What a state is asked for."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    rule_id: RuleId | None = None


class RedirectIssued(BaseModel):
    """What DetectAuth is to be given; one verification each."""

    state: str = Field(description="Into RedirectUrl: `…/v1/callbacks/redirect?state=…`.")
    extra: str = Field(description="Into Extra. A result that comes without it is not stored.")
    expires_at: Instant


class PersonSearch(BaseModel):
    """Who is looked for, and which of their verifications. It is in the body because it must be in no address."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id_card: Line
    name: Line | None = None
    client: Line | None = Field(default=None, description="Whose verifications; for admins. Otherwise the key's own.")
    state: State | None = None
    outcome: Outcome | None = None
    rule_id: RuleId | None = None
    subject_ref: Line | None = None
    received_from: Moment | None = None
    received_to: Moment | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str | None, Field(max_length=64)] = None

    def person(self) -> Person:
        """As a value of the services."""
        return Person(self.id_card, self.name)

    def filter(self) -> Filter:
        """As a value of the domain."""
        return Filter(**{name: getattr(self, name) for name in Filter.__dataclass_fields__})


class CallbackAccepted(BaseModel):
    """The callback is on disk; the result follows."""

    model_config = ConfigDict(from_attributes=True)

    biz_token: str
    state: State
    received_at: Instant


class Verdict(BaseModel):
    """What a business decides by; numbers and messages as Tencent sent them."""

    model_config = ConfigDict(from_attributes=True)

    err_code: int | None
    err_msg: str | None
    live_status: int | None
    live_msg: str | None
    compare_status: int | None
    compare_msg: str | None
    similarity: float | None = Field(description="Percent; Tencent passes at 70.")


class MaskedIdentity(BaseModel):
    """Enough to tell two records apart."""

    model_config = ConfigDict(from_attributes=True)

    name: str | None = Field(examples=["张*"])
    id_card: str | None = Field(examples=["1****************4"])
    ocr_address: str | None = Field(examples=["北京市***"])


class Attempt(BaseModel):
    """One try before the camera."""

    model_config = ConfigDict(from_attributes=True)

    err_code: int | None
    err_msg: str | None
    requested_at: Instant | None


class MediumLink(BaseModel):
    """A medium that can be downloaded at `href`."""

    kind: MediaKind
    content_type: str
    size_bytes: int
    href: str


class Retrieval(BaseModel):
    """How the retrieval went so far. `due_at` says when it goes on, null when there is nothing left to do."""

    model_config = ConfigDict(from_attributes=True)

    attempts: int
    last_request_id: str | None = Field(description="What Tencent's support asks for.")
    last_error_code: str | None
    due_at: Instant | None
    deadline_at: Instant


class VerificationStanding(BaseModel):
    """Where the retrieval stands, and nothing of what it found: for keys that may only write."""

    biz_token: str
    rule_id: str
    subject_ref: str | None
    state: State
    retrieval: Retrieval
    registered_at: Instant | None
    received_at: Instant | None
    retrieved_at: Instant | None

    @classmethod
    def of(cls, verification: Verification) -> Self:
        """From the values of the domain."""
        return cls(
            biz_token=verification.biz_token,
            rule_id=verification.rule_id,
            subject_ref=verification.subject_ref,
            state=verification.state,
            retrieval=Retrieval.model_validate(verification),
            registered_at=verification.registered_at,
            received_at=verification.received_at,
            retrieved_at=verification.retrieved_at,
        )


class VerificationView(BaseModel):
    """A verification, the identity masked."""

    biz_token: str
    rule_id: str
    subject_ref: str | None
    state: State
    outcome: Outcome | None
    provisional: bool
    verdict: Verdict
    identity: MaskedIdentity
    liveness_attempts: list[Attempt]
    media: list[MediumLink]
    retrieval: Retrieval
    registered_at: Instant | None
    received_at: Instant | None
    retrieved_at: Instant | None
    retain_until: Instant
    retain_media_until: Instant
    legal_hold: bool

    @classmethod
    def of(cls, result: Result) -> Self:
        """From the values of the domain."""
        verification, detection = result.verification, result.detection or Detection()
        return cls(
            biz_token=verification.biz_token,
            rule_id=verification.rule_id,
            subject_ref=verification.subject_ref,
            state=verification.state,
            outcome=verification.outcome,
            provisional=verification.provisional,
            verdict=Verdict.model_validate(detection),
            identity=MaskedIdentity.model_validate(result.masked),
            liveness_attempts=[Attempt.model_validate(attempt) for attempt in detection.liveness_attempts],
            media=[_link(verification, medium) for medium in result.media],
            retrieval=Retrieval.model_validate(verification),
            registered_at=verification.registered_at,
            received_at=verification.received_at,
            retrieved_at=verification.retrieved_at,
            retain_until=verification.retain_until,
            retain_media_until=verification.retain_media_until,
            legal_hold=verification.legal_hold,
        )


def _link(verification: Verification, medium: Medium) -> MediumLink:
    return MediumLink(
        kind=medium.kind,
        content_type=medium.content_type,
        size_bytes=medium.size_bytes,
        href=f"/v1/verifications/{verification.biz_token}/media/{medium.kind}",
    )


class VerificationPage(BaseModel):
    """A page of a list, the newest first; `next_cursor` is null on the last one."""

    items: list[VerificationView]
    next_cursor: str | None


class RevealedAttempt(Attempt):
    """One try before the camera, with whom Tencent compared."""

    name: str | None
    id_card: str | None
    req_time: str | None
    further: Mapping[str, object]


class Identity(BaseModel):
    """Every field of Tencent's Text by our name for it, the values as Tencent sent them; what is new, in `further`."""

    biz_token: str
    err_code: int | None
    err_msg: str | None
    id_card: str | None
    name: str | None
    ocr_nation: str | None
    ocr_address: str | None
    ocr_birth: str | None
    ocr_authority: str | None
    ocr_valid_date: str | None
    ocr_name: str | None
    ocr_id_card: str | None
    ocr_gender: str | None
    live_status: int | None
    live_msg: str | None
    compare_status: int | None
    compare_msg: str | None
    sim: str | None
    location: str | None
    extra: str | None
    further: Mapping[str, object]
    liveness_attempts: list[RevealedAttempt]
    callback_extra: str | None = Field(description="The Extra that came with the callback.")

    @classmethod
    def of(cls, result: Result) -> Self:
        """From the values of the domain."""
        detection = result.detection or Detection()
        values = {name: getattr(detection, name) for name in cls.model_fields if hasattr(detection, name)}
        values["liveness_attempts"] = [
            RevealedAttempt.model_validate(attempt) for attempt in detection.liveness_attempts
        ]
        return cls(biz_token=result.verification.biz_token, callback_extra=result.callback_extra, **values)


class AuditEvent(BaseModel):
    """One row of the audit."""

    model_config = ConfigDict(from_attributes=True)

    at: Instant
    who: str
    key_id: str
    client: str
    action: Action
    biz_token: str | None
    subject: str | None = Field(description="The API key that a key event is about.")
    fields: list[str]
    purpose: str | None
    request_id: str
    outcome: str

    @classmethod
    def of(cls, event: Event, biz_token: str | None) -> Self:
        """From the values of the domain."""
        values = {name: getattr(event, name) for name in cls.model_fields if hasattr(event, name)}
        return cls(**values | {"biz_token": biz_token, "fields": event.fields.split()})


class AuditPage(BaseModel):
    """A page of the audit, the newest first; `next_cursor` is null on the last one."""

    items: list[AuditEvent]
    next_cursor: str | None
