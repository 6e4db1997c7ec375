"""The settings of the sign-in with OpenID Connect."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from app.domain.api_key import Scope
from app.domain.rule import DEFAULT_CLIENT
from app.domain.single_sign_on import Role

CALLBACK_PATH = "/admin/login/oidc/callback"
UNKNOWN_KEY = "oidc_key"
"""The reason of the refusal of an ID token whose key is unknown."""

_LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}


def is_safe(text: str) -> bool:
    """Returns whether an address is of HTTPS, or of this machine."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError):
        return False
    is_local = url.scheme == "http" and url.host in _LOCAL_HOSTS
    return bool(url.host) and (url.scheme == "https" or is_local) and not url.userinfo and not url.fragment


def _is_issuer(text: str) -> str:
    if not is_safe(text) or httpx.URL(text).query:
        raise ValueError("it must be the issuer as the provider writes it, beginning with https://")
    return text


def _is_origin(text: str) -> str:
    if not is_safe(text) or httpx.URL(text).raw_path != b"/":
        raise ValueError("it must be https://host or https://host:port, without a path")
    return text.rstrip("/")


def _requests_openid(text: str) -> str:
    if "openid" not in text.split():
        raise ValueError("it must contain openid")
    return text


class OidcRoleSettings(BaseModel):
    """The rights of people who have a value of the claim: `[oidc_roles.VALUE]` in the TOML file."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    client: str = Field(default=DEFAULT_CLIENT, min_length=1, max_length=128)
    scopes: Sequence[Scope] = Field(min_length=1)


class OidcSettings(BaseModel):
    """The provider, this service as its client, and who may do what. Without an issuer there is no such sign-in."""

    oidc_issuer: Annotated[str, AfterValidator(_is_issuer)] | None = None
    oidc_client_id: str = ""
    oidc_client_secret: SecretStr = SecretStr("")
    oidc_scopes: Annotated[str, AfterValidator(_requests_openid)] = "openid profile"
    oidc_admin_claim: str = "groups"
    oidc_admin_values: str = ""
    oidc_ca_file: Path | None = None
    oidc_roles: Mapping[str, OidcRoleSettings] = Field(default_factory=dict)
    public_url: Annotated[str, AfterValidator(_is_origin)] | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        secret = self.oidc_client_secret.get_secret_value()
        needed = {"OIDC_CLIENT_ID": self.oidc_client_id, "OIDC_CLIENT_SECRET": secret, "PUBLIC_URL": self.public_url}
        missing = [name for name, value in needed.items() if not value]
        if self.oidc_issuer and missing:
            raise ValueError(f"{missing[0]} is required because OIDC_ISSUER is set")
        return self

    @property
    def roles(self) -> Mapping[str, Role]:
        """The rights by value of the claim, those of administrators first. By default there are none."""
        admins = [value.strip() for value in self.oidc_admin_values.split(",")]
        others = {value: Role(each.client, frozenset(each.scopes)) for value, each in self.oidc_roles.items()}
        return dict.fromkeys(filter(None, admins), Role(DEFAULT_CLIENT, frozenset({Scope.ADMIN}))) | {
            value: role for value, role in others.items() if value not in admins
        }

    @property
    def callback_url(self) -> str:
        """The address that the provider sends browsers back to."""
        return f"{self.public_url}{CALLBACK_PATH}"

    @property
    def digest(self) -> str:
        """A digest of everything that grants rights. Sessions end when it changes."""
        granting = {"oidc_issuer", "oidc_client_id", "oidc_admin_claim", "oidc_admin_values", "oidc_roles"}
        return hashlib.sha256(self.model_dump_json(include=granting).encode()).hexdigest()
