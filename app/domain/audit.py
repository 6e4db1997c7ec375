"""The audit trail: who did what with whose data and for what purpose.

It contains no personal data and stays when the data are erased.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum

GENESIS = bytes(32)
"""The hash that the first link of the chain continues."""


DONE = "done"
"""The outcome of an action that was not refused."""


class Action(StrEnum):
    """The recorded action. A refused one has the code of its error as the outcome, a refused authentication why.

    `RETENTION` is an erasure after the retention; its outcome names the ids of the verifications. A revealing `EXPORT`
    is recorded when it begins and when it ends, with the number of verifications.
    """

    IDENTITY = "identity"
    MEDIA = "media"
    SEARCH = "search"
    ERASE = "erase"
    HOLD = "hold"
    RELEASE = "release"
    KEY_CREATED = "key_created"
    KEY_REVOKED = "key_revoked"
    RETRIEVE = "retrieve"
    RETENTION = "retention"
    AUTHENTICATION = "authentication"
    WEBHOOK_CREATED = "webhook_created"
    WEBHOOK_CHANGED = "webhook_changed"
    WEBHOOK_ROTATED = "webhook_rotated"
    WEBHOOK_DELETED = "webhook_deleted"
    WEBHOOK_REPLAYED = "webhook_replayed"
    EXPORT = "export"
    SIGN_IN = "sign_in"
    SIGN_OUT = "sign_out"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One row of the audit trail; `id` is 0 until the database assigns one.

    `fields` are the names of the disclosed, searched, erased or changed fields. `subject` is the API key or the webhook
    endpoint that an action is about, the holder of ended sessions, or the address of a refused authentication. `key_id`
    is the API key, or `oidc:` and the subject of a person. An altered row may have another text as its action.
    """

    id: int = 0
    at: datetime
    who: str
    key_id: str
    client: str
    action: Action | str
    verification_id: int | None = None
    subject: str | None = None
    fields: str = ""
    purpose: str | None = None
    request_id: str
    outcome: str

    def linked_to(self, previous: bytes) -> bytes:
        """Returns the data that this row's link authenticates: the previous hash and the columns as a JSON list."""
        values = asdict(self) | {"at": self.at.astimezone(UTC).isoformat(timespec="microseconds")}
        return previous + json.dumps(list(values.values())).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """The records that a list contains; None does not filter. Empty ids select nothing."""

    action: Action | None = None
    key_id: str | None = None
    verification_ids: frozenset[int] | None = None
    outcome: str | None = None
    at_from: datetime | None = None
    at_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One link of the chain: its position (from 1), the id of the row it covers, and the hash."""

    position: int
    audit_id: int
    hash: bytes
