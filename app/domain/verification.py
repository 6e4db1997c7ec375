"""A verification: one person's run through FaceID, identified by its BizToken, and the progress of its retrieval."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum

from app.domain.detection import Detection, Outcome, Part
from app.domain.media import MediaItem, UnreadableMedia
from app.domain.personal import Masked
from app.domain.rule import DEFAULT_ACCOUNT

BIZ_TOKEN_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"
"""The syntax of a BizToken, as a regular expression."""

TokenOwner = tuple[str, str]
"""A client and a BizToken. Different clients may have the same token, each with a verification of its own."""

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
"""Before every verification."""

NEVER = datetime(9000, 1, 1, tzinfo=UTC)
"""After every instant that is stored. Sums with any span of ours stay within Python's calendar."""

MALFORMED = b"malformed"
"""The digest of a row with a value that no version of the service writes. The value itself reads as absent."""


class State(StrEnum):
    """The state of the retrieval. Tencent's verdict is separate: see `Outcome`."""

    PENDING = "pending"
    RETRIEVED = "retrieved"
    FAILED = "failed"
    EXPIRED = "expired"
    ERASED = "erased"


STANDINGS: tuple[tuple[State, Outcome | None], ...] = (
    (State.PENDING, None),
    (State.RETRIEVED, Outcome.PASSED),
    (State.RETRIEVED, Outcome.FAILED),
    (State.RETRIEVED, Outcome.UNFINISHED),
    (State.RETRIEVED, None),
    (State.FAILED, None),
    (State.EXPIRED, None),
    (State.ERASED, None),
)
"""Every pair of state and outcome that `app.domain.lifecycle` can produce. A retrieved one lacks an outcome only if its
rule does not request the text."""


class Priority(IntEnum):
    """The order of retrieval when more is due than the quota allows."""

    # A caller is waiting for it.
    FRESH = 0
    RETRY = 1
    POLL = 2
    # Media that may appear later. Only this may be due further ahead than the person has time.
    LAST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFacts:
    """The facts that a business system may state about a token at registration; None where it states nothing."""

    rule_id: str | None = None
    subject_ref: str | None = None
    purpose: str | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """One verification as stored; `id` is 0 until the database assigns one. Instants are aware, in UTC.

    `updated_at` is the last change of anything that a reader sees; a claim is none.

    `is_rule_assumed`: no notice has stated the rule, so `rule_id` is the default rule of that time.

    The queue: `due_at` is the time of the next call, or None. `claim` counts the claims; only the newest may write
    a result. `is_leased`: a worker holds the claim. `wake_requested`: a callback arrived during the lease.

    The counters: `called_at` is the time of the last call to Tencent. `attempts` counts all calls, `failures`
    the consecutive calls without an answer, `polls` the calls that returned "unfinished".

    The parts: `fetched_parts` are the stored parts while others are still missing (empty before the first and after the
    last). `awaited_parts` are those that Tencent lacks so far, or whose media were unreadable: they are polled for
    `media_polls` times. `unreadable` are these media. `fetch_separately`: all parts at once were too much. `nonce`: the
    `Extra` that the result must
    contain (see `app.domain.redirect_state`).

    `erase_at` is when to erase next (None: a legal hold, or nothing is left). `sealed_key` is the wrapped key of all
    personal values, including `callback_extra`. `digest` binds the row and its result (`app.sealing.digests`), and
    `revision` counts the stored results. `err_code` is the result code of the stored text, for events and statistics.

    `event_count` counts the events (`app.domain.events`). `is_expiry_announced`: one of them reported the deadline.
    """

    id: int = 0
    client: str
    biz_token: str
    rule_id: str
    is_rule_assumed: bool = False
    account: str = DEFAULT_ACCOUNT
    subject_ref: str | None = None
    purpose: str | None = None
    callback_extra: bytes | None = field(default=None, repr=False)
    sealed_key: bytes | None = field(default=None, repr=False)
    digest: bytes | None = field(default=None, repr=False)
    revision: int = 0
    state: State = State.PENDING
    outcome: Outcome | None = None
    provisional: bool = False
    err_code: int | None = None
    event_count: int = 0
    is_expiry_announced: bool = False
    created_at: datetime | None = None
    registered_at: datetime | None = None
    received_at: datetime | None = None
    retrieved_at: datetime | None = None
    updated_at: datetime = LONG_AGO
    deadline_at: datetime
    due_at: datetime | None
    priority: Priority = Priority.FRESH
    fetched_parts: frozenset[Part] = frozenset()
    fetch_separately: bool = False
    awaited_parts: frozenset[Part] = frozenset()
    media_polls: int = 0
    unreadable: tuple[UnreadableMedia, ...] = ()
    claim: int = 0
    is_leased: bool = False
    wake_requested: bool = False
    called_at: datetime | None = None
    attempts: int = 0
    failures: int = 0
    polls: int = 0
    last_request_id: str | None = None
    last_error_code: str | None = None
    retain_until: datetime = NEVER
    retain_media_until: datetime = NEVER
    erase_at: datetime | None = None
    erased_at: datetime | None = None
    legal_hold: bool = False
    nonce: str | None = field(default=None, repr=False)

    @property
    def is_malformed(self) -> bool:
        """Whether the stored row has a value that no version of the service writes."""
        return self.digest == MALFORMED

    @property
    def owner(self) -> TokenOwner:
        """The client and the token, which identify the verification."""
        return self.client, self.biz_token

    @property
    def born_at(self) -> datetime:
        """The earliest known instant of the token: the best lower bound of its age. A malformed row may have none."""
        known = (self.created_at, self.registered_at, self.received_at)
        return min((at for at in known if at is not None), default=self.updated_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A verification and what was retrieved for it. `detection` contains personal values only after a reveal.

    `is_altered`: stored values failed their authentication. Such a result has no outcome, text or media.
    """

    verification: Verification
    detection: Detection | None = None
    masked: Masked = field(default_factory=Masked)
    callback_extra: str | None = field(default=None, repr=False)
    media: tuple[MediaItem, ...] = ()
    is_altered: bool = False

    @property
    def unreadable(self) -> Sequence[UnreadableMedia]:
        """The media that could not be read, except those that an earlier answer contained."""
        stored = {item.kind for item in self.media}
        return [item for item in self.verification.unreadable if item.kind not in stored]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamCall:
    """One call to Tencent as recorded. Tencent's support asks for the `request_id`.

    `error_code` is Tencent's code, one of ours if there was no answer (`app.faceid.error_codes`), or None.
    """

    called_at: datetime
    action: str
    info_type: str
    request_id: str | None
    error_code: str | None
    duration_ms: int
    bytes_received: int
