"""The signature TC3-HMAC-SHA256 of POST requests, as specified by Tencent Cloud's page "Signature v3"."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

ALGORITHM = "TC3-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key pair of Tencent Cloud. Temporary ones have a `token`, which is sent unsigned in `X-TC-Token`."""

    secret_id: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


def authorization(
    credentials: Credentials, *, service: str, headers: Mapping[str, str], body: bytes, timestamp: int
) -> str:
    """Returns the `Authorization` header for a POST to `/` without a query.

    Args:
        credentials: the key pair to sign with.
        service: the product, `faceid`: the first label of the endpoint.
        headers: the headers to sign, by lower-case name. `content-type` and `host` are required, with exactly the
            values that are sent. As specified, values are trimmed and lower-cased here.
        body: the bytes of the request body.
        timestamp: seconds since the epoch, as in `X-TC-Timestamp`. The scope contains its UTC date.
    """
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name].strip().lower()}\n" for name in sorted(headers))
    canonical_request = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    date = datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d")
    scope = f"{date}/{service}/tc3_request"
    digest = hashlib.sha256(canonical_request.encode()).hexdigest()
    key = f"TC3{credentials.secret_key}".encode()
    for step in (date, service, "tc3_request"):
        key = _hmac(key, step)
    signature = _hmac(key, f"{ALGORITHM}\n{timestamp}\n{scope}\n{digest}").hex()
    return f"{ALGORITHM} Credential={credentials.secret_id}/{scope}, SignedHeaders={names}, Signature={signature}"


def _hmac(key: bytes, message: str) -> bytes:
    return hmac.new(key, message.encode(), hashlib.sha256).digest()
