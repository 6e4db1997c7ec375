"""What goes on record: who did what with whose data, and what for. It holds no personal data, and outlives them."""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum

GENESIS = bytes(32)
"""What the first row of the chain is linked to."""


class Action(StrEnum):
    """What was done."""

    IDENTITY = "identity"
    MEDIA = "media"
    SEARCH = "search"
    ERASE = "erase"
    HOLD = "hold"
    RELEASE = "release"
    KEY_CREATED = "key_created"
    KEY_REVOKED = "key_revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row of the audit; `id` is 0 until the database has numbered it.

    `fields` are the names of what was disclosed or searched by, `subject` is the API key that a key event is about.
    """

    id: int = 0
    at: datetime
    who: str
    key_id: str
    client: str
    action: Action
    verification_id: int | None = None
    subject: str | None = None
    fields: str = ""
    purpose: str | None = None
    request_id: str
    outcome: str

    def linked_to(self, previous: bytes) -> bytes:
        """The row's link in the chain: SHA-256 of the link before it and of the row as a JSON list of its columns."""
        values = asdict(self) | {"at": self.at.astimezone(UTC).isoformat(timespec="microseconds")}
        return hashlib.sha256(previous + json.dumps(list(values.values())).encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events a list shows; None does not filter."""

    action: Action | None = None
    key_id: str | None = None
    verification_id: int | None = None
    at_from: datetime | None = None
    at_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """One link of the chain: its place in it from 1 on, the row that it links, and the digest."""

    position: int
    audit_id: int
    hash: bytes
