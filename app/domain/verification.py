"""A verification: one person's run through FaceID, named by its BizToken, and where its retrieval stands."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.domain.detection import Outcome


class State(StrEnum):
    """Where the retrieval stands; Tencent's verdict is the `Outcome`, apart from it."""

    PENDING = "pending"
    RETRIEVED = "retrieved"
    FAILED = "failed"
    EXPIRED = "expired"
    ERASED = "erased"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a business system may tell about a token when it registers it; None where it says nothing."""

    rule_id: str | None = None
    subject_ref: str | None = None
    purpose: str | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """One verification as the database knows it. Instants are aware UTC; `due_at` None means: nothing left to do.

    `attempts` counts all calls to Tencent, `failures` those without an answer since the last one that had one,
    `looks` those that found the person not finished yet. `claim` is the number of the newest claim.
    """

    id: int
    client: str
    biz_token: str
    rule_id: str
    subject_ref: str | None
    purpose: str | None
    state: State
    outcome: Outcome | None
    provisional: bool
    created_at: datetime | None
    registered_at: datetime | None
    received_at: datetime | None
    retrieved_at: datetime | None
    due_at: datetime | None
    deadline_at: datetime
    claim: int
    attempts: int
    failures: int
    looks: int
    last_request_id: str | None
    last_error_code: str | None

    @property
    def born_at(self) -> datetime:
        """When the token was created, as far as we know: the best lower bound of its age."""
        known = (self.created_at, self.registered_at, self.received_at)
        return min(at for at in known if at is not None)
