"""Sign-in with OpenID Connect: the flow that a browser has begun, the check of an ID token, and the rights of roles."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.domain.api_key import Caller, Scope

FLOW_LIFETIME = timedelta(minutes=10)
"""The time that a person has to sign in at the provider."""

LEEWAY = timedelta(seconds=60)
"""The tolerated difference of the clocks."""

MAX_NAME_CHARACTERS = 64
MAX_SUBJECT_CHARACTERS = 250
"""OpenID Connect allows 255, but the filters of the audit allow 256 for the whole id."""

_RANDOM_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A sign-in that has begun. Only the browser that began it keeps it, sealed."""

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    next_url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Role:
    """The rights of the people who have a value of the claim: the scopes, and the client whose results they see."""

    client: str
    scopes: frozenset[Scope]


def new_flow(next_url: str, now: datetime) -> Flow:
    """Returns a new flow with 256 random bits in each of its three secrets."""
    state, nonce, verifier = (secrets.token_urlsafe(_RANDOM_BYTES) for _ in range(3))
    return Flow(state=state, nonce=nonce, verifier=verifier, next_url=next_url, expires_at=now + FLOW_LIFETIME)


def fault_of(claims: Mapping[str, object], *, issuer: str, client_id: str, nonce: str, now: datetime) -> str | None:
    """Returns the claim of an ID token that is missing or wrong; None if there is none."""
    at, leeway = now.timestamp(), LEEWAY.total_seconds()
    expires_at, issued_at, begins_at = (_instant(claims, name) for name in ("exp", "iat", "nbf"))
    audiences, authorised = claims.get("aud"), claims.get("azp")
    audiences = [audiences] if isinstance(audiences, str) else audiences
    oldest = at - FLOW_LIFETIME.total_seconds() - leeway
    checks = {
        "iss": claims.get("iss") == issuer,
        "sub": _is_subject(claims.get("sub")),
        "aud": isinstance(audiences, list) and client_id in audiences,
        "azp": authorised == client_id if "azp" in claims else isinstance(audiences, list) and len(audiences) == 1,
        "nonce": isinstance(nonce_claim := claims.get("nonce"), str) and _equal(nonce_claim, nonce),
        # Numbers of the token are only compared: they may be too large to calculate with, and NaN is never right.
        "exp": expires_at is not None and at - leeway < expires_at,
        "iat": issued_at is not None and oldest <= issued_at <= at + leeway,
        "nbf": "nbf" not in claims or (begins_at is not None and begins_at <= at + leeway),
    }
    return next((name for name, is_right in checks.items() if not is_right), None)


def values_of(claims: Mapping[str, object], name: str) -> Sequence[str] | None:
    """Returns the values of a claim, which is a text or a list of texts; None if it is missing or malformed."""
    found = claims.get(name)
    if isinstance(found, str):
        return [found]
    if isinstance(found, list):
        return [value for value in found if isinstance(value, str)]
    return None


def role_of(values: Sequence[str], roles: Mapping[str, Role]) -> Role | None:
    """Returns the rights of a person with these values; None without any.

    A session belongs to one client. The first role in the order of the settings decides which, and further roles of the
    same client add their scopes.
    """
    granted = [role for value, role in roles.items() if value in values]
    if not granted:
        return None
    client = granted[0].client
    scopes = frozenset[Scope]().union(*(role.scopes for role in granted if role.client == client))
    return Role(client, scopes)


def caller_of(claims: Mapping[str, object], role: Role) -> Caller:
    """Returns the caller for a person. The subject is the identity; the name is for readers and may change."""
    caller_id = caller_id_of(claims)
    names = (_clean(claims.get(name)) for name in ("name", "preferred_username"))
    return Caller(id=caller_id, name=next(filter(None, names), caller_id), client=role.client, scopes=role.scopes)


def caller_id_of(claims: Mapping[str, object]) -> str:
    """Returns the id of the person, which no API key can have."""
    return f"oidc:{claims['sub']}"


def _instant(claims: Mapping[str, object], name: str) -> float | None:
    value = claims.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_subject(value: object) -> bool:
    """Returns whether a subject can be recorded as it is. To change one could make two people one."""
    is_text = isinstance(value, str) and 0 < len(value) <= MAX_SUBJECT_CHARACTERS
    return is_text and str(value).isascii() and str(value).isprintable()


def _equal(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode(errors="replace"), other.encode())


def _clean(value: object) -> str:
    """Returns a name without characters that are invisible or change the direction of text."""
    if not isinstance(value, str):
        return ""
    return "".join(letter for letter in " ".join(value.split()) if letter.isprintable())[:MAX_NAME_CHARACTERS].strip()
