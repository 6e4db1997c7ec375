"""Signatures after Standard Webhooks (https://www.standardwebhooks.com), of version 1: HMAC-SHA256."""

import hmac
import re
import secrets as random
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

TOLERANCE = timedelta(minutes=5)
"""How far a signature's timestamp may lie in the past or future."""

_PREFIX = "whsec_"
# The standard's limits.
_SECRET_BYTES = range(24, 65)
_NEW_SECRET_BYTES = 32
_SECONDS = re.compile(r"[1-9][0-9]{0,10}")


def new_secret() -> str:
    """Returns a new secret: `whsec_` and the base64 of 256 random bits."""
    return _PREFIX + b64encode(random.token_bytes(_NEW_SECRET_BYTES)).decode()


def is_secret(text: str) -> bool:
    """Returns whether the text is `whsec_` and the base64 of 24 to 64 bytes."""
    try:
        size = len(b64decode(text.removeprefix(_PREFIX), validate=True))
    except ValueError:
        return False
    return text.startswith(_PREFIX) and size in _SECRET_BYTES


def sign(secret: str, message_id: str, signed_at: datetime, body: bytes) -> str:
    """Returns the signature over id, timestamp and body.

    Args:
        secret: `whsec_` and the base64 of 24 to 64 bytes.
        message_id: the value of `webhook-id`.
        signed_at: the value of `webhook-timestamp`, which has whole seconds.
        body: the request's body.
    """
    key = b64decode(secret.removeprefix(_PREFIX))
    content = f"{message_id}.{int(signed_at.timestamp())}.".encode() + body
    return f"v1,{b64encode(hmac.digest(key, content, 'sha256')).decode()}"


def signed_headers(secrets: Sequence[str], message_id: str, signed_at: datetime, body: bytes) -> Mapping[str, str]:
    """Returns the headers of a message, with one signature by each secret."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(signed_at.timestamp())),
        "webhook-signature": " ".join(sign(secret, message_id, signed_at, body) for secret in secrets),
    }


def is_signed(secret: str, headers: Mapping[str, str], body: bytes, now: datetime) -> bool:
    """Returns whether one of the signatures of a message is by this secret, and its timestamp within the tolerance.

    Args:
        secret: the secret.
        headers: by their names in lower case.
        body: the body as received.
        now: the time.
    """
    message_id, signed_at = headers.get("webhook-id"), _instant(headers.get("webhook-timestamp", ""))
    if not message_id or not signed_at or abs(now - signed_at) > TOLERANCE:
        return False
    expected = sign(secret, message_id, signed_at, body).encode()
    signatures = headers.get("webhook-signature", "").encode().split(b" ")
    return any(hmac.compare_digest(expected, signature) for signature in signatures)


def _instant(seconds: str) -> datetime | None:
    return datetime.fromtimestamp(int(seconds), UTC) if _SECONDS.fullmatch(seconds) else None
