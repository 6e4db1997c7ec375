"""A verification: one person's run through FaceID, named by its BizToken, and where its retrieval stands."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum

from app.domain.detection import Detection, Medium, Outcome, Part
from app.domain.masking import Masked
from app.domain.rule import DEFAULT_ACCOUNT

SPELLING = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"
"""What may be a BizToken, as a regular expression."""


FOR_EVER = datetime(9999, 12, 31, tzinfo=UTC)


class State(StrEnum):
    """Where the retrieval stands; Tencent's verdict is the `Outcome`, apart from it."""

    PENDING = "pending"
    RETRIEVED = "retrieved"
    FAILED = "failed"
    EXPIRED = "expired"
    ERASED = "erased"


class Priority(IntEnum):
    """Who goes first where the quota does not suffice for all that is due."""

    FRESH = 0  # somebody waits for it
    RETRY = 1
    POLL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a business system may tell about a token when it registers it; None where it says nothing."""

    rule_id: str | None = None
    subject_ref: str | None = None
    purpose: str | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """One verification as the database knows it; `id` is 0 until the database has numbered it.

    Instants are aware UTC; `due_at` None means: nothing left to do.

    `attempts` counts all calls to Tencent, `failures` those without an answer since the last one that had one,
    `looks` those that found the person not finished yet. `claim` is the number of the newest claim, `leased` says that
    its worker has not reported back, `woken` that a callback came since.

    `pulled` are the parts that are stored while others are still to come, as the digits of InfoType; empty before the
    first and after the last. `one_by_one` says that all at once were too much. `nonce` is what the result must have for
    its Extra (`app.domain.redirect`).

    `erase_at` is when there is next something to erase, None where it is held (`legal_hold`) or nothing is left.

    `sealed_key` is the key of all that is sealed of the person, `callback_extra` among it; the key ring has sealed it.
    """

    id: int = 0
    client: str
    biz_token: str
    rule_id: str
    account: str = DEFAULT_ACCOUNT
    subject_ref: str | None = None
    purpose: str | None = None
    callback_extra: bytes | None = field(default=None, repr=False)
    sealed_key: bytes | None = field(default=None, repr=False)
    state: State = State.PENDING
    outcome: Outcome | None = None
    provisional: bool = False
    created_at: datetime | None = None
    registered_at: datetime | None = None
    received_at: datetime | None = None
    retrieved_at: datetime | None = None
    deadline_at: datetime
    due_at: datetime | None
    priority: Priority = Priority.FRESH
    pulled: str = ""
    one_by_one: bool = False
    claim: int = 0
    leased: bool = False
    woken: bool = False
    attempts: int = 0
    failures: int = 0
    looks: int = 0
    last_request_id: str | None = None
    last_error_code: str | None = None
    retain_until: datetime = FOR_EVER
    retain_media_until: datetime = FOR_EVER
    erase_at: datetime | None = None
    erased_at: datetime | None = None
    legal_hold: bool = False
    nonce: str | None = field(default=None, repr=False)

    @property
    def born_at(self) -> datetime:
        """When the token was created, as far as we know: the best lower bound of its age."""
        known = (self.created_at, self.registered_at, self.received_at)
        return min(at for at in known if at is not None)

    @property
    def pulled_parts(self) -> frozenset[Part]:
        """`pulled`, as parts."""
        return frozenset(map(Part, self.pulled))


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A verification with what was retrieved for it; what is personal is in `detection` only when it is revealed."""

    verification: Verification
    detection: Detection | None = None
    masked: Masked = field(default_factory=Masked)
    callback_extra: str | None = field(default=None, repr=False)
    media: tuple[Medium, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which verifications a list shows; None does not filter. `client` None shows those of all clients."""

    client: str | None = None
    state: State | None = None
    outcome: Outcome | None = None
    rule_id: str | None = None
    subject_ref: str | None = None
    received_from: datetime | None = None
    received_to: datetime | None = None

    @property
    def is_by_receipt(self) -> bool:
        """Whether the list is in the order of receipt: within a range of it, but for the few of one subject."""
        return (self.received_from or self.received_to) is not None and self.subject_ref is None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of a list ended; `received_at` where the list is in the order of receipt."""

    id: int
    received_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call to Tencent, as it is put on record; `request_id` is what Tencent's support asks for.

    `error_code` is Tencent's, or one of ours where no answer came (`app.faceid.error_codes`), or None.
    """

    called_at: datetime
    action: str
    info_type: str
    request_id: str | None
    error_code: str | None
    duration_ms: int
    bytes_received: int
