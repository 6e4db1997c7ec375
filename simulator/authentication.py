"""Authentication by TC3-HMAC-SHA256, written from Tencent Cloud's page "Signature v3"."""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from simulator.requests import TencentError

ALGORITHM = "TC3-HMAC-SHA256"
SERVICE = "faceid"
MAX_CLOCK_SKEW_SECONDS = 300

_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=(?P<secret_id>[^/,\s]+)/(?P<date>\d{{4}}-\d\d-\d\d)/(?P<service>[a-z]+)/tc3_request, *"
    r"SignedHeaders=(?P<names>[a-z0-9;-]+), *Signature=(?P<signature>[0-9a-f]{64})",
    re.ASCII,
)
_REQUIRED = {
    "x-tc-action": "Action",
    "x-tc-version": "Version",
    "x-tc-timestamp": "Timestamp",
    "authorization": "Authorization",
}


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key pair. Temporary key pairs have a `token`, sent in `X-TC-Token` and not signed."""

    secret_id: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


def authenticate(headers: Mapping[str, str], body: bytes, *, known: Iterable[KeyPair], now: float) -> None:
    """Checks that a known key pair signed the content type, the host and the body less than five minutes ago.

    Args:
        headers: the request's headers, by lower-case name.
        body: the request's body.
        known: the accepted key pairs.
        now: the current time in seconds since the epoch.

    Raises:
        TencentError: MissingParameter, InvalidParameter or one of AuthFailure.
    """
    for header, parameter in _REQUIRED.items():
        if not headers.get(header):
            raise TencentError("MissingParameter", f"The request is missing a required parameter `{parameter}`.")
    claim = _AUTHORIZATION.fullmatch(headers["authorization"].strip())
    if claim is None:
        raise TencentError("AuthFailure.InvalidAuthorization", f"The Authorization header is not valid {ALGORITHM}.")
    if re.fullmatch("[0-9]{1,11}", headers["x-tc-timestamp"]) is None:
        raise TencentError("InvalidParameter", "The Timestamp must be a whole number of seconds since the epoch.")
    timestamp = int(headers["x-tc-timestamp"])
    if abs(now - timestamp) > MAX_CLOCK_SKEW_SECONDS:
        raise TencentError(
            "AuthFailure.SignatureExpire", f"The Timestamp differs from the server's clock by {now - timestamp:.0f} s."
        )
    credentials = next((pair for pair in known if pair.secret_id == claim["secret_id"]), None)
    if credentials is None:
        raise TencentError("AuthFailure.SecretIdNotFound", "The SecretId is not found.")
    if credentials.token is not None and not _equal(credentials.token, headers.get("x-tc-token", "")):
        raise TencentError("AuthFailure.TokenFailure", "The X-TC-Token does not belong to the SecretId.")
    _verify(claim, headers, body, timestamp, credentials.secret_key)


def signature(secret_key: str, *, service: str, timestamp: int, headers: Sequence[tuple[str, str]], body: bytes) -> str:
    """Computes the signature of a POST to `/` without a query, as lower-case hex.

    Args:
        secret_key: the key that signs.
        service: the product in the credential scope.
        timestamp: seconds since the epoch, as in `X-TC-Timestamp`.
        headers: the signed headers, lower-case names in ascending order.
        body: the request's body.
    """
    canonical_request = "\n".join(
        (
            "POST",
            "/",
            "",  # no query
            *(f"{name}:{value.strip().lower()}" for name, value in headers),
            "",
            ";".join(name for name, _ in headers),
            hashlib.sha256(body).hexdigest(),
        )
    )
    date = _utc_date(timestamp)
    scope = f"{date}/{service}/tc3_request"
    hashed_request = hashlib.sha256(canonical_request.encode()).hexdigest()
    secret_date = _hmac(f"TC3{secret_key}".encode(), date)
    secret_signing = _hmac(_hmac(secret_date, service), "tc3_request")
    return _hmac(secret_signing, f"{ALGORITHM}\n{timestamp}\n{scope}\n{hashed_request}").hex()


def _verify(claim: re.Match[str], headers: Mapping[str, str], body: bytes, timestamp: int, secret_key: str) -> None:
    names = claim["names"].split(";")
    if names != sorted(set(names)) or not {"content-type", "host"} <= set(names) <= set(headers):
        raise TencentError(
            "AuthFailure.SignatureFailure",
            "SignedHeaders must be sorted, include content-type and host, and name only headers of the request.",
        )
    if (claim["date"], claim["service"]) != (_utc_date(timestamp), SERVICE):
        raise TencentError(
            "AuthFailure.SignatureFailure", f"The credential scope must be the UTC date of the Timestamp and {SERVICE}."
        )
    signed = [(name, headers[name]) for name in names]
    expected = signature(secret_key, service=SERVICE, timestamp=timestamp, headers=signed, body=body)
    if not _equal(expected, claim["signature"]):
        raise TencentError("AuthFailure.SignatureFailure", "The signature does not match the request.")


def _utc_date(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).date().isoformat()


def _hmac(key: bytes, message: str) -> bytes:
    return hmac.digest(key, message.encode(), "sha256")


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
