"""Who may do what: callers, their scopes, the client whose verifications they see, and the keys that prove them."""

import hashlib
import ipaddress
import re
import secrets
import zlib
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_KEY = re.compile(r"frk_([0-9a-f]{12})_([0-9a-f]{48})([0-9a-f]{8})")


class Scope(StrEnum):
    """What a key allows; `admin` includes all others and sees every client's verifications."""

    CALLBACKS_WRITE = "callbacks:write"
    RESULTS_READ = "results:read"
    RESULTS_REVEAL = "results:reveal"
    MEDIA_READ = "media:read"
    RESULTS_ERASE = "results:erase"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, however that was proven: `id` is what goes on record."""

    id: str
    name: str
    client: str
    scopes: frozenset[Scope]

    def allows(self, scope: Scope) -> bool:
        """Whether the caller has the scope, or `admin`."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    @property
    def scope_of_sight(self) -> str | None:
        """The client whose verifications the caller sees; None for all of them."""
        return None if Scope.ADMIN in self.scopes else self.client

    def sees(self, client: str) -> bool:
        """Whether the caller sees this client's verifications."""
        return self.scope_of_sight in {None, client}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey(Caller):
    """An API key as it is stored: a digest stands for the secret, sealed by the key ring for the rights of the key.

    No `networks` means that it is good from anywhere.
    """

    sealed_digest: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    networks: tuple[Network, ...] = ()

    def is_alive(self, now: datetime) -> bool:
        """Whether the key is good at this instant."""
        return now < self.expires_at and (self.revoked_at is None or now < self.revoked_at)

    @property
    def rights(self) -> tuple[str, ...]:
        """All that the digest of its secret is sealed for: whoever changes a right in the database ends the key."""
        dates = (self.created_at.isoformat(), self.expires_at.isoformat())
        scopes = " ".join(sorted(self.scopes))
        return "api_key", self.id, self.name, self.client, scopes, *dates, *map(str, self.networks)

    def is_good_from(self, address: str | None) -> bool:
        """Whether the key may be used from this address; None, or what is none, lies in no network."""
        if not self.networks:
            return True
        try:
            known = ipaddress.ip_address(address or "")
        except ValueError:
            return False
        # A socket for both families tells of an IPv4 client as ::ffff:192.0.2.1.
        known = getattr(known, "ipv4_mapped", None) or known
        return any(known in network for network in self.networks)


OPERATOR = Caller(id="command-line", name="command line", client="default", scopes=frozenset({Scope.ADMIN}))
"""Whoever can run commands on the machine."""


def mint() -> tuple[str, str, str]:
    """A new key: (id, secret, the text that its holder sends).

    The text is `frk_<id>_<secret><checksum>`: a fixed prefix for secret scanners, 192 random bits, and a CRC-32, by
    which a scanner, or we, can tell a mistyped key from an unknown one without a look at the database.
    """
    key_id, secret = secrets.token_hex(6), secrets.token_hex(24)
    return key_id, secret, f"frk_{key_id}_{secret}{_checksum(key_id, secret)}"


def parse(text: str) -> tuple[str, str] | None:
    """(id, secret) of a key's text; None if it cannot be a key."""
    match = _KEY.fullmatch(text)
    if match is None:
        return None
    key_id, secret, checksum = match.groups()
    return (key_id, secret) if checksum == _checksum(key_id, secret) else None


def digest(secret: str) -> bytes:
    """What stands for a secret. It has 192 random bits, so that a fast hash withstands guessing."""
    return hashlib.sha256(secret.encode()).digest()


def _checksum(key_id: str, secret: str) -> str:
    return f"{zlib.crc32(f'{key_id}_{secret}'.encode()):08x}"
