"""API keys: callers, their scopes and clients, and the text that proves a key."""

import hashlib
import ipaddress
import re
import secrets
import zlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from app.domain.address import parse_address
from app.domain.rule import DEFAULT_CLIENT

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

EXPIRY_WARNING = timedelta(days=14)
"""Keys that expire within this time are reported."""

DESTROYED = b""
"""The sealed digest of a revoked key: no secret matches it."""

_KEY_TEXT = re.compile(r"frk_([0-9a-f]{12})_([0-9a-f]{48})([0-9a-f]{8})")


class Scope(StrEnum):
    """The permissions of a key. `admin` includes all other scopes and every client's verifications."""

    CALLBACKS_WRITE = "callbacks:write"
    RESULTS_READ = "results:read"
    RESULTS_REVEAL = "results:reveal"
    MEDIA_READ = "media:read"
    RESULTS_ERASE = "results:erase"
    WEBHOOKS_MANAGE = "webhooks:manage"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated caller, by key, signature or command line. The audit trail records `id` and `name`."""

    id: str
    name: str
    client: str
    scopes: frozenset[Scope]

    def allows(self, scope: Scope) -> bool:
        """Returns whether the caller has the scope, or `admin`."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    @property
    def visible_client(self) -> str | None:
        """The client whose verifications the caller can see; None for all clients."""
        return None if Scope.ADMIN in self.scopes else self.client

    def can_see(self, client: str) -> bool:
        """Returns whether the caller can see this client's verifications."""
        return self.visible_client in {None, client}


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A caller within one request: what services need to authorise and audit it.

    `purpose` is the stated purpose of a disclosure, `address` the caller's network address; None where unknown.
    """

    caller: Caller
    request_id: str
    purpose: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey(Caller):
    """An API key as stored. The key ring seals a digest of its secret, bound to the key's rights.

    Without `networks` the key is valid from anywhere. A revoked key has no digest any more.
    """

    sealed_digest: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    networks: tuple[Network, ...] = ()

    def is_active(self, now: datetime) -> bool:
        """Returns whether the key is neither expired nor revoked."""
        return now < self.expires_at and (self.revoked_at is None or now < self.revoked_at)

    @property
    def has_digest(self) -> bool:
        """Whether a secret can still match the key."""
        return self.sealed_digest != DESTROYED

    def expires_soon(self, now: datetime) -> bool:
        """Returns whether the key is to be replaced soon."""
        return self.expires_at - now <= EXPIRY_WARNING

    @property
    def bound_values(self) -> tuple[str, ...]:
        """Associated data of the sealed secret digest. Changing one of these in the database invalidates the key."""
        dates = (self.created_at.isoformat(), self.expires_at.isoformat())
        scopes = " ".join(sorted(self.scopes))
        return "api_key", self.id, self.name, self.client, scopes, *dates, *map(str, self.networks)

    def allows_address(self, address: str | None) -> bool:
        """Returns whether the key may be used from this address. None and malformed ones are in no network."""
        if not self.networks:
            return True
        known = parse_address(address)
        return known is not None and any(known in network for network in self.networks)


OPERATOR = Caller(id="command-line", name="command line", client=DEFAULT_CLIENT, scopes=frozenset({Scope.ADMIN}))
"""The caller of commands that run on the machine itself."""

RETENTION = Caller(id="retention", name="retention", client=DEFAULT_CLIENT, scopes=frozenset())
"""The caller of erasures after the retention."""


def new_key() -> tuple[str, str, str]:
    """Returns (id, secret, text) of a new key. The text is what its holder sends.

    The text is `frk_<id>_<secret><checksum>`: a fixed prefix for secret scanners, 192 random bits, and a CRC-32 that
    separates mistyped keys from unknown ones without a look at the database.
    """
    key_id, secret = secrets.token_hex(6), secrets.token_hex(24)
    return key_id, secret, f"frk_{key_id}_{secret}{_checksum(key_id, secret)}"


def parse(text: str) -> tuple[str, str] | None:
    """Returns (id, secret) of a key's text; None if it is malformed."""
    match = _KEY_TEXT.fullmatch(text)
    if match is None:
        return None
    key_id, secret, checksum = match.groups()
    return (key_id, secret) if checksum == _checksum(key_id, secret) else None


def digest(secret: str) -> bytes:
    """Returns the digest of a secret. The secret has 192 random bits, so a fast hash resists guessing."""
    return hashlib.sha256(secret.encode()).digest()


def _checksum(key_id: str, secret: str) -> str:
    return f"{zlib.crc32(f'{key_id}_{secret}'.encode()):08x}"
