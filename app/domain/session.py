"""Sessions of the console: who has signed in, and until when."""

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.domain.api_key import Scope

LIFETIME = timedelta(hours=12)
"""The longest session, however much it is used."""

GRANTED_LIFETIME = timedelta(hours=4)
"""The longest session without a key. Its rights are not checked again, so it ends sooner."""

IDLE = timedelta(minutes=30)
"""The end of a session without requests."""

# A request that follows sooner changes nothing in the database.
_NOTICED_EVERY = timedelta(minutes=1)
_ID_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleSession:
    """A session as stored. Its id is only in the cookie; the row has a hash of it.

    `key_id` is the API key behind the session, whose rights it has at any time. Without a key it has the rights that
    the single sign-on granted: `client` and `scopes`. `sealed_hash` is the hash, sealed and bound to all rights.
    """

    id_hash: bytes = field(repr=False)
    key_id: str | None
    caller_id: str
    name: str
    client: str
    scopes: frozenset[Scope]
    sealed_hash: bytes = field(default=b"", repr=False)
    created_at: datetime
    seen_at: datetime
    expires_at: datetime

    @property
    def bound_values(self) -> tuple[str, ...]:
        """Associated data of the sealed hash. Changing one of these in the database ends the session."""
        dates = (self.created_at.isoformat(), self.expires_at.isoformat())
        scopes = " ".join(sorted(self.scopes))
        return "console_session", self.key_id or "", self.caller_id, self.name, self.client, scopes, *dates

    def is_active(self, now: datetime) -> bool:
        """Returns whether the session has neither expired nor been idle for too long."""
        return now < self.expires_at and now - self.seen_at < IDLE

    def must_be_noticed(self, now: datetime) -> bool:
        """Returns whether a request at this time must be stored as the last one."""
        return now - self.seen_at >= _NOTICED_EVERY


def new_id() -> str:
    """Returns the id of a new session: 256 random bits, as the cookie carries them."""
    return secrets.token_urlsafe(_ID_BYTES)


def hash_of(session_id: str) -> bytes:
    """Returns the hash of an id. The id is random, so a fast hash resists guessing."""
    return hashlib.sha256(session_id.encode()).digest()
