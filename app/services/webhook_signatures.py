"""Callbacks that are signed instead of carrying an API key: the secrets of clients, and who has signed."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from app.domain.api_key import Caller, Scope
from app.domain.rule import DEFAULT_CLIENT
from app.errors import UnauthenticatedError
from app.webhooks.signatures import is_secret, is_signed


def _valid_secrets(secrets: Sequence[SecretStr]) -> Sequence[SecretStr]:
    if not all(is_secret(secret.get_secret_value()) for secret in secrets):
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
        now = self._clock()
        for secret, caller in self._signers:
            if is_signed(secret, headers, body, now):
                return caller
        raise UnauthenticatedError("The signature is unknown, malformed or out of date.", reason="signature")
