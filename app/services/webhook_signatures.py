"""Signatures after Standard Webhooks (https://www.standardwebhooks.com): signed, and verified on callbacks."""

import hmac
import re
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from app.domain.api_key import Caller, Scope
from app.domain.rule import DEFAULT_CLIENT
from app.errors import UnauthenticatedError

TOLERANCE = timedelta(minutes=5)
"""How far a signature's timestamp may lie in the past or future."""

_PREFIX = "whsec_"
# The standard's limits.
_SECRET_BYTES = range(24, 65)
_SECONDS = re.compile(r"[1-9][0-9]{0,10}")


def sign(secret: str, message_id: str, signed_at: datetime, body: bytes) -> str:
    """Returns the value of `webhook-signature`, version 1: HMAC-SHA256 over id, timestamp and body.

    Args:
        secret: `whsec_` and the base64 of 24 to 64 bytes.
        message_id: the value of `webhook-id`.
        signed_at: the value of `webhook-timestamp`, which has whole seconds.
        body: the request's body.
    """
    key = b64decode(secret.removeprefix(_PREFIX))
    content = f"{message_id}.{int(signed_at.timestamp())}.".encode() + body
    return f"v1,{b64encode(hmac.digest(key, content, 'sha256')).decode()}"


def _valid_secrets(secrets: Sequence[SecretStr]) -> Sequence[SecretStr]:
    for secret in secrets:
        text = secret.get_secret_value()
        try:
            size = len(b64decode(text.removeprefix(_PREFIX), validate=True))
        except ValueError:
            size = 0
        if not text.startswith(_PREFIX) or size not in _SECRET_BYTES:
            raise ValueError("each secret is whsec_ and the base64 of 24 to 64 bytes")
    return secrets


def _split(secrets: SecretStr) -> Sequence[SecretStr]:
    return [SecretStr(secret) for secret in secrets.get_secret_value().split()]


def _valid_text(secrets: SecretStr) -> SecretStr:
    _valid_secrets(_split(secrets))
    return secrets


class CallbackSettings(BaseModel):
    """One client's secrets: `[callbacks.CLIENT]` in the TOML file. All are valid, so they can be rotated."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    secrets: Annotated[Sequence[SecretStr], AfterValidator(_valid_secrets)]


class SignatureSettings(BaseModel):
    """The secrets that may sign callbacks. `callback_secrets`, separated by spaces, belong to the default client."""

    model_config = ConfigDict(hide_input_in_errors=True)

    callback_secrets: Annotated[SecretStr, AfterValidator(_valid_text)] = SecretStr("")
    callbacks: Mapping[str, CallbackSettings] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_secret_one_client(self) -> Self:
        owners = Counter(secret for secrets in self.secrets_by_client.values() for secret in set(secrets))
        if any(count > 1 for count in owners.values()):
            raise ValueError("a secret in [callbacks] is used by two clients")
        return self

    @property
    def secrets_by_client(self) -> Mapping[str, Sequence[SecretStr]]:
        """All secrets of all clients."""
        named = {client: list(settings.secrets) for client, settings in self.callbacks.items()}
        return named | {DEFAULT_CLIENT: [*_split(self.callback_secrets), *named.get(DEFAULT_CLIENT, ())]}


class SignatureService:
    """Authenticates signed callbacks."""

    def __init__(self, settings: SignatureSettings, clock: Callable[[], datetime]) -> None:
        self._signers = [
            (
                secret.get_secret_value(),
                Caller(id="signature", name="signature", client=client, scopes=frozenset({Scope.CALLBACKS_WRITE})),
            )
            for client, secrets in settings.secrets_by_client.items()
            for secret in secrets
        ]
        self._clock = clock

    def authenticate(self, headers: Mapping[str, str], body: bytes) -> Caller:
        """Returns the client whose secret verifies `webhook-signature`.

        Args:
            headers: by their names in lower case.
            body: the body as received.

        Raises:
            UnauthenticatedError: a header is missing or malformed, the timestamp is outside the tolerance, or no secret
                verifies the signature.
        """
        message_id, signed_at = headers.get("webhook-id"), _instant(headers.get("webhook-timestamp", ""))
        if message_id and signed_at and abs(self._clock() - signed_at) <= TOLERANCE:
            signatures = headers.get("webhook-signature", "").encode().split(b" ")
            for secret, caller in self._signers:
                expected = sign(secret, message_id, signed_at, body).encode()
                if any(hmac.compare_digest(expected, signature) for signature in signatures):
                    return caller
        raise UnauthenticatedError("The signature is unknown, malformed or out of date.", reason="signature")


def _instant(seconds: str) -> datetime | None:
    return datetime.fromtimestamp(int(seconds), UTC) if _SECONDS.fullmatch(seconds) else None
