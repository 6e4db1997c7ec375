"""Who may come in: the signature of a request, recomputed from what it says to have signed."""

import hmac
import re
from collections.abc import Iterable, Mapping

from app.faceid.signing import Credentials, authorization
from app.simulator.requests import TencentError

SIGNATURE_SECONDS = 300
"""How far the client's clock may be off."""

_AUTHORIZATION = re.compile(
    r"TC3-HMAC-SHA256 Credential=(?P<secret_id>[^/,\s]+)/\d{4}-\d\d-\d\d/[a-z]+/tc3_request, "
    r"SignedHeaders=(?P<names>[a-z0-9;-]+), Signature=[0-9a-f]{64}",
    re.ASCII,
)
_REQUIRED = {
    "x-tc-action": "Action",
    "x-tc-version": "Version",
    "x-tc-timestamp": "Timestamp",
    "authorization": "Authorization",
}


def authenticate(headers: Mapping[str, str], body: bytes, *, known: Iterable[Credentials], now: float) -> None:
    """Lets the request pass if one of the known key pairs signed it, its content type, host and body, just now.

    Args:
        headers: as they came, looked up by lower-case name.
        body: as it came.
        known: the key pairs.
        now: seconds since the epoch.

    Raises:
        TencentError: MissingParameter, InvalidParameter or one of AuthFailure.
    """
    for header, parameter in _REQUIRED.items():
        if not headers.get(header):
            raise TencentError("MissingParameter", f"The request is missing a required parameter `{parameter}`.")
    claim = _AUTHORIZATION.fullmatch(re.sub(r",\s*", ", ", headers["authorization"].strip()))
    if claim is None:
        raise TencentError(
            "AuthFailure.InvalidAuthorization", "The Authorization header is not one of TC3-HMAC-SHA256."
        )
    timestamp = _fresh(headers["x-tc-timestamp"], now)
    credentials = next((pair for pair in known if pair.secret_id == claim["secret_id"]), None)
    if credentials is None:
        raise TencentError("AuthFailure.SecretIdNotFound", "The SecretId is not found.")
    if credentials.token is not None and not _equal(credentials.token, headers.get("x-tc-token", "")):
        raise TencentError("AuthFailure.TokenFailure", "The X-TC-Token does not belong to the SecretId.")
    _verify(claim, headers, body, credentials, timestamp)


def _fresh(timestamp: str, now: float) -> int:
    if re.fullmatch("[0-9]{1,11}", timestamp) is None:
        raise TencentError("InvalidParameter", "The Timestamp is not a number of seconds.")
    seconds = int(timestamp)
    if abs(now - seconds) > SIGNATURE_SECONDS:
        raise TencentError(
            "AuthFailure.SignatureExpire", f"The Timestamp is {now - seconds:.0f} s away from our clock."
        )
    return seconds


def _verify(
    claim: re.Match[str], headers: Mapping[str, str], body: bytes, credentials: Credentials, timestamp: int
) -> None:
    names = set(claim["names"].split(";"))
    if not names >= {"content-type", "host"} or any(name not in headers for name in names):
        raise TencentError(
            "AuthFailure.SignatureFailure", "content-type and host must be signed, and all that is, sent."
        )
    signed = {name: headers[name] for name in names}
    expected = authorization(credentials, service="faceid", headers=signed, body=body, timestamp=timestamp)
    if not _equal(expected, claim[0]):
        raise TencentError("AuthFailure.SignatureFailure", "The signature does not belong to the request.")


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
