"""The JSON of the API: snake_case, numbers and instants typed, absent values null and never missing.

Callbacks may also use Tencent's spelling: `BizToken`, `RuleId`, `Extra`.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import unquote_to_bytes, urlencode

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
    model_validator,
)
from pydantic_core import PydanticCustomError, PydanticKnownError

from app.domain.api_key import Scope
from app.domain.detection import Detection, Outcome
from app.domain.listing import TimeField, TimeRange, VerificationFilter
from app.domain.media import MediaKind, UnreadableReason
from app.domain.verification import BIZ_TOKEN_PATTERN, Result, State, TokenFacts, Verification
from app.services import read
from app.services.read import PersonQuery
from app.tabular import Format, rfc3339

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 30, tzinfo=UTC)
_HALF_ENCODED = re.compile("%(?![0-9A-Fa-f]{2})")


_MAX_VALUES = 20
_RANGES = ", ".join(field.removesuffix("_at") for field in TimeField)
_RULE_ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
_LINE_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]{1,256}$"
_TEXT_PATTERN = r"^[^\x00]{0,2048}$"
PATTERN_WORDS = {
    BIZ_TOKEN_PATTERN: "must have 1 to 128 letters, digits, underscores, dots or hyphens, the first a letter or digit",
    _RULE_ID_PATTERN: "must have 1 to 64 letters, digits, underscores or hyphens",
    _LINE_PATTERN: "must have 1 to 256 characters, without control characters",
    _TEXT_PATTERN: "must have at most 2048 characters, without NUL",
}
"""The limits of texts in words, to be put after the name of a field."""


def _text_only(value: object) -> object:
    """Rejects numbers: pydantic would guess whether they are seconds or milliseconds."""
    if not isinstance(value, str) or ":" not in value:
        raise PydanticKnownError("datetime_type")
    return value


def _in_utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


def _from_header(value: str) -> str:
    """Decodes a header as UTF-8, percent-encoded or not. The server reads Latin-1, and many clients send only ASCII."""
    malformed = PydanticCustomError("header_encoding", "must be UTF-8 or percent-encoded UTF-8, with %25 for %")
    if _HALF_ENCODED.search(value):
        raise malformed
    try:
        # Encoded blanks around the text are none of it, like plain ones.
        return unquote_to_bytes(value.encode("latin-1")).decode().strip()
    except UnicodeError:
        raise malformed from None


def _listed(value: object) -> object:
    """Accepts one value as a list of it, as earlier versions did."""
    return value if isinstance(value, list) else [] if value is None else [value]


BizToken = Annotated[str, Field(pattern=BIZ_TOKEN_PATTERN, examples=["CE661F1A-0F1E-45BD-BE13-34C05CEA7681"])]
RuleId = Annotated[str, Field(pattern=_RULE_ID_PATTERN, examples=["1"])]
Line = Annotated[str, Field(pattern=_LINE_PATTERN)]
Text = Annotated[str, Field(pattern=_TEXT_PATTERN)]
HeaderLine = Annotated[Line, BeforeValidator(_from_header)]
Moment = Annotated[AwareDatetime, Field(ge=_EPOCH, le=_LAST), BeforeValidator(_text_only), AfterValidator(_in_utc)]
Instant = Annotated[
    datetime, PlainSerializer(rfc3339), WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization")
]


ErrCode = Annotated[int, Field(ge=-(2**31), lt=2**31)]
T = TypeVar("T")
Several = Annotated[list[T], BeforeValidator(_listed)]


class Readiness(BaseModel):
    """Readiness, with warnings for the operator. Their text names accounts, keys and paths, so only admins get it."""

    status: str
    warning_count: int
    warnings: list[str] | None


class Registration(BaseModel):
    """The facts about a token when DetectAuth returned it; all optional."""

    model_config = ConfigDict(extra="forbid")

    rule_id: RuleId | None = None
    subject_ref: Line | None = Field(default=None, description="Your own reference for the case. No personal data.")
    created_at: Moment | None = Field(
        default=None, description="When DetectAuth returned the token; makes the deadline exact."
    )
    purpose: Line | None = None

    def facts(self) -> TokenFacts:
        """Returns the facts as a domain value."""
        return TokenFacts(
            rule_id=self.rule_id, subject_ref=self.subject_ref, created_at=self.created_at, purpose=self.purpose
        )


class Callback(BaseModel):
    """The completion of a verification. Each field may be in Tencent's spelling or in snake_case."""

    model_config = ConfigDict(extra="forbid")

    biz_token: BizToken = Field(validation_alias=AliasChoices("BizToken", "biz_token"))
    rule_id: RuleId | None = Field(default=None, validation_alias=AliasChoices("RuleId", "rule_id"))
    extra: Text | None = Field(default=None, validation_alias=AliasChoices("Extra", "extra"))


class RedirectWanted(BaseModel):
    """The request for a signed state."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    rule_id: RuleId | None = None


class RedirectIssued(BaseModel):
    """The values for DetectAuth, for one verification."""

    state: str = Field(description="For RedirectUrl: `…/v1/callbacks/redirect?state=…`.")
    extra: str = Field(description="For Extra. A result without it is not stored.")
    expires_at: Instant


class Filters(BaseModel):
    """The filters of a list, and its order."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    client: Line | None = Field(default=None, description="The client whose verifications are listed; for admins.")
    state: Several[State] = Field(default_factory=list, max_length=_MAX_VALUES, description="Any of these states.")
    outcome: Several[Outcome] = Field(
        default_factory=list, max_length=_MAX_VALUES, description="Any of these outcomes."
    )
    err_code: Several[ErrCode] = Field(
        default_factory=list, max_length=_MAX_VALUES, description="Any of these result codes of Tencent."
    )
    rule_id: RuleId | None = None
    subject_ref: Line | None = None
    registered_from: Moment | None = Field(default=None, description="Registered at this instant or later.")
    registered_to: Moment | None = Field(default=None, description="Registered before this instant.")
    received_from: Moment | None = Field(default=None, description="Called back at this instant or later.")
    received_to: Moment | None = Field(default=None, description="Called back before this instant.")
    retrieved_from: Moment | None = Field(default=None, description="Last retrieved at this instant or later.")
    retrieved_to: Moment | None = Field(default=None, description="Last retrieved before this instant.")
    updated_from: Moment | None = Field(default=None, description="Last changed at this instant or later.")
    updated_to: Moment | None = Field(default=None, description="Last changed before this instant.")
    order: Literal["asc", "desc"] = Field(default="desc", description="Newest first, or with `asc` oldest first.")

    @model_validator(mode="after")
    def _have_one_range(self) -> Self:
        if len(self._ranges()) > 1:
            raise PydanticCustomError(
                "several_ranges", "may have only one range of time: {ranges}", {"ranges": _RANGES}
            )
        return self

    def _ranges(self) -> list[TimeRange]:
        ranges = (
            TimeRange(field=field, start=getattr(self, f"{name}_from"), end=getattr(self, f"{name}_to"))
            for field in TimeField
            for name in (field.removesuffix("_at"),)
        )
        return [within for within in ranges if within.start or within.end]

    def filter(self) -> VerificationFilter:
        """Returns the filters as a domain value."""
        return VerificationFilter(
            client=self.client,
            state=tuple(self.state),
            outcome=tuple(self.outcome),
            err_code=tuple(self.err_code),
            rule_id=self.rule_id,
            subject_ref=self.subject_ref,
            within=next(iter(self._ranges()), None),
            is_ascending=self.order == "asc",
        )


class ListQuery(Filters):
    """The filters of a list, its order and its page."""

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str | None, Field(max_length=64)] = None


class ExportQuery(Filters):
    """The filters of an export, its order, and how it is written."""

    format: Format = Format.CSV
    reveal: bool = Field(default=False, description="Unmasked. Needs the scope `results:reveal` and `X-Purpose`.")


class PersonSearch(ListQuery):
    """A person, and filters. In the body because personal data must not appear in a URL."""

    id_card: Line
    name: Line | None = None

    def person(self) -> PersonQuery:
        """Returns the person as a service value."""
        return PersonQuery(self.id_card, self.name)


class CallbackAccepted(BaseModel):
    """The callback is durable; the result follows."""

    model_config = ConfigDict(from_attributes=True)

    biz_token: str
    state: State
    received_at: Instant


class Verdict(BaseModel):
    """The verdict. Numbers and messages are as Tencent sent them."""

    model_config = ConfigDict(from_attributes=True)

    err_code: int | None
    err_msg: str | None
    live_status: int | None
    live_msg: str | None
    compare_status: int | None
    compare_msg: str | None
    similarity: float | None = Field(description="In percent; Tencent's threshold is 70.")
    intention_status: int | None = Field(
        description="The result of the confirmation of an intention (enhanced rules): 0 confirmed; null without one."
    )
    intention_msg: str | None


class MaskedIdentity(BaseModel):
    """The masked identity: enough to distinguish two records."""

    model_config = ConfigDict(from_attributes=True)

    name: str | None = Field(examples=["张*"])
    id_card: str | None = Field(examples=["1****************4"])
    ocr_address: str | None = Field(examples=["北京市***"])


class Attempt(BaseModel):
    """One attempt in front of the camera."""

    model_config = ConfigDict(from_attributes=True)

    err_code: int | None
    err_msg: str | None
    requested_at: Instant | None


class MediumLink(BaseModel):
    """A media item, which can be downloaded at `href`."""

    kind: MediaKind
    content_type: str
    size_bytes: int
    href: str


class UnreadableItem(BaseModel):
    """A media item that Tencent has, but that no answer contained in a readable form."""

    model_config = ConfigDict(from_attributes=True)

    kind: MediaKind
    reason: UnreadableReason = Field(
        description="`not_base64`, `not_text`, or `address`: Tencent sent the address of a file in your own bucket, "
        "which is in `further` of the identity."
    )


class Retrieval(BaseModel):
    """The progress of the retrieval. `due_at` is when to call Tencent next, null if never."""

    model_config = ConfigDict(from_attributes=True)

    attempts: int
    last_request_id: str | None = Field(description="Tencent's support asks for it.")
    last_error_code: str | None
    due_at: Instant | None
    deadline_at: Instant


class VerificationStanding(BaseModel):
    """The state of the retrieval without its result, for keys that may only write."""

    client: str
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
        """Converts the domain value."""
        values = {name: getattr(verification, name) for name in cls.model_fields if name != "retrieval"}
        return cls(retrieval=Retrieval.model_validate(verification), **values)


class VerificationView(BaseModel):
    """A verification with the masked identity."""

    altered: bool = Field(
        description="Only in lists: stored values failed their authentication. The item has no outcome, verdict, "
        "identity or media then, and reading it alone is the error `altered`."
    )
    client: str
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
    unreadable_media: list[UnreadableItem]
    retrieval: Retrieval
    registered_at: Instant | None
    received_at: Instant | None
    retrieved_at: Instant | None
    updated_at: Instant
    retain_until: Instant
    retain_media_until: Instant
    legal_hold: bool

    @classmethod
    def of(cls, result: Result, reader: str) -> Self:
        """Converts the domain value for a reader of this client."""
        verification, detection = result.verification, result.detection or Detection()
        # Without it, an admin would get the item of its own client, or none if several clients have the token.
        query = "" if verification.client == reader else f"?{urlencode({'client': verification.client})}"
        return cls(
            altered=result.is_altered,
            client=verification.client,
            biz_token=verification.biz_token,
            rule_id=verification.rule_id,
            subject_ref=verification.subject_ref,
            state=verification.state,
            outcome=verification.outcome,
            provisional=verification.provisional,
            verdict=Verdict.model_validate(detection),
            identity=MaskedIdentity.model_validate(result.masked),
            liveness_attempts=[Attempt.model_validate(attempt) for attempt in detection.liveness_attempts],
            media=[
                MediumLink(
                    kind=item.kind,
                    content_type=item.content_type,
                    size_bytes=item.size_bytes,
                    href=f"/v1/verifications/{verification.biz_token}/media/{item.kind}{query}",
                )
                for item in result.media
            ],
            unreadable_media=[UnreadableItem.model_validate(item) for item in result.unreadable],
            retrieval=Retrieval.model_validate(verification),
            registered_at=verification.registered_at,
            received_at=verification.received_at,
            retrieved_at=verification.retrieved_at,
            updated_at=verification.updated_at,
            retain_until=verification.retain_until,
            retain_media_until=verification.retain_media_until,
            legal_hold=verification.legal_hold,
        )


class VerificationPage(BaseModel):
    """A page of a list, newest first; `next_cursor` is null on the last one."""

    items: list[VerificationView]
    next_cursor: str | None

    @classmethod
    def of(cls, page: read.ResultPage, reader: str) -> Self:
        """Converts a page of the services for a reader of this client."""
        items = [VerificationView.of(result, reader) for result in page.results]
        return cls(items=items, next_cursor=page.next_cursor)


class RevealedAttempt(Attempt):
    """One attempt in front of the camera, with the identity that Tencent compared."""

    name: str | None
    id_card: str | None
    req_time: str | None
    further: Mapping[str, object]


class Identity(BaseModel):
    """Every field of Tencent's Text under our name, with Tencent's value. `further` contains unmapped fields."""

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
    callback_extra: str | None = Field(description="The Extra of the callback.")

    @classmethod
    def of(cls, result: Result) -> Self:
        """Converts the domain value."""
        detection = result.detection or Detection()
        values = {name: getattr(detection, name) for name in cls.model_fields if hasattr(detection, name)}
        values["liveness_attempts"] = [
            RevealedAttempt.model_validate(attempt) for attempt in detection.liveness_attempts
        ]
        return cls(biz_token=result.verification.biz_token, callback_extra=result.callback_extra, **values)


class KeyDescription(BaseModel):
    """An API key. Without networks it is valid from anywhere."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    client: str
    scopes: Annotated[list[Scope], BeforeValidator(sorted)]
    networks: Annotated[list[str], BeforeValidator(lambda networks: list(map(str, networks)))]
    expires_at: Instant
