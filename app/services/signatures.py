"""Callbacks that are signed instead of keyed, after Standard Webhooks (https://www.standardwebhooks.com)."""

import hmac
import re
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from standardwebhooks import Webhook

from app.domain.access import Caller, Scope
from app.domain.rule import DEFAULT_CLIENT
from app.errors import UnauthenticatedError

TOLERANCE = timedelta(minutes=5)  # either way
_PREFIX = "whsec_"
_SECRET_BYTES = range(24, 65)  # after the standard
_SECONDS = re.compile(r"[1-9][0-9]{0,10}")


def _well_formed(secrets: Sequence[SecretStr]) -> Sequence[SecretStr]:
    for secret in secrets:
        text = secret.get_secret_value()
        try:
            size = len(b64decode(text.removeprefix(_PREFIX), validate=True))
        except ValueError:
            size = 0
        if not text.startswith(_PREFIX) or size not in _SECRET_BYTES:
            raise ValueError("each secret is whsec_ and the base64 of 24 to 64 bytes")
    return secrets


def _split(secrets: SecretStr) -> SecretStr:
    _well_formed(_parts(secrets))
    return secrets


def _parts(secrets: SecretStr) -> Sequence[SecretStr]:
    return [SecretStr(secret) for secret in secrets.get_secret_value().split()]


class CallbackSettings(BaseModel):
    """One client's secrets: `[callbacks.CLIENT]` in the TOML file. All are good, so that they can be exchanged."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    secrets: Annotated[Sequence[SecretStr], AfterValidator(_well_formed)]


class SignatureSettings(BaseModel):
    """Whose callbacks may be signed, and with what; `callback_secrets`, between spaces, are the default client's."""

    model_config = ConfigDict(hide_input_in_errors=True)

    callback_secrets: Annotated[SecretStr, AfterValidator(_split)] = SecretStr("")
    callbacks: Mapping[str, CallbackSettings] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_secret_one_client(self) -> Self:
        owners = Counter(secret for secrets in self.secrets_by_client.values() for secret in set(secrets))
        if any(count > 1 for count in owners.values()):
            raise ValueError("a secret stands for one client, and one below [callbacks] stands for two")
        return self

    @property
    def secrets_by_client(self) -> Mapping[str, Sequence[SecretStr]]:
        """All secrets of all clients."""
        named = {client: list(settings.secrets) for client, settings in self.callbacks.items()}
        return named | {DEFAULT_CLIENT: [*_parts(self.callback_secrets), *named.get(DEFAULT_CLIENT, ())]}


class SignatureService:
    """Recognises who signed a callback."""

    def __init__(self, settings: SignatureSettings, clock: Callable[[], datetime]) -> None:
        self._signers = [
            (
                Webhook(secret.get_secret_value()),
                Caller(id="signature", name="signature", client=client, scopes=frozenset({Scope.CALLBACKS_WRITE})),
            )
            for client, secrets in settings.secrets_by_client.items()
            for secret in secrets
        ]
        self._clock = clock

    def authenticate(self, headers: Mapping[str, str], body: bytes) -> Caller:
        """Whoever has a secret that verifies `webhook-signature`; `headers` have names in lower case.

        The library's own `verify` takes many spellings of one signature for it, and knows no clock but the machine's.

        Raises:
            UnauthenticatedError: a header is missing or malformed, older or newer than the tolerance, or nobody's.
        """
        message_id, signed_at = headers.get("webhook-id"), _instant(headers.get("webhook-timestamp", ""))
        if message_id and signed_at and abs(self._clock() - signed_at) <= TOLERANCE:
            text = body.decode(errors="replace")  # what is not UTF-8 is not JSON either
            told = headers.get("webhook-signature", "").encode().split(b" ")
            for webhook, caller in self._signers:
                good = webhook.sign(message_id, signed_at, text).encode()
                if any(hmac.compare_digest(good, signature) for signature in told):
                    return caller
        raise UnauthenticatedError("The signature is unknown, malformed or out of date.")


def _instant(seconds: str) -> datetime | None:
    return datetime.fromtimestamp(int(seconds), UTC) if _SECONDS.fullmatch(seconds) else None
