"""The settings: composed of the slices that adapters and services define, and read once.

From the strongest to the weakest source: environment, files in `/run/secrets` (named like the setting, in lower case),
`.env`, `faceid-results.toml`.
"""

import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from app.errors import ConfigurationError
from app.faceid.credentials import AccountSettings, FaceIdSettings
from app.oidc.settings import OidcRoleSettings, OidcSettings
from app.sealing.keyring import KeyringSettings
from app.services.billing import BillingSettings
from app.services.limits import LimitSettings
from app.services.rule_settings import RuleSettings, RulesSettings
from app.services.sessions import ConsoleSettings
from app.services.webhook_signatures import CallbackSettings, SignatureSettings
from app.storage.database import DatabaseSettings
from app.storage.media import MediaSettings
from app.webhooks.client import WebhookSettings

# Proxies and load balancers keep an idle connection for up to 60 s by default, and the server must keep it longer.
# Otherwise it may close the connection just when the proxy sends a request, and the client receives a 502.
KEEPALIVE_SECONDS = 75

_SECRETS = Path("/run/secrets")
_TOML = Path("faceid-results.toml")
# One or two characters of a name differ.
_ALMOST = 0.85
# The tables whose keys users choose, and what each entry may contain.
_TABLES: Mapping[str, type[BaseModel]] = {
    "accounts": AccountSettings,
    "callbacks": CallbackSettings,
    "oidc_roles": OidcRoleSettings,
    "rules": RuleSettings,
}

Slice = TypeVar("Slice", bound=BaseModel)


class ProcessSettings(BaseModel):
    """The settings of the process itself."""

    worker_concurrency: int = Field(default=16, ge=1, le=256)
    redirect_page_url: str = "/v1/callbacks/done"
    http_keepalive_seconds: int = Field(default=KEEPALIVE_SECONDS, ge=1, le=3600)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("redirect_page_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if not re.fullmatch(r"(https?:/)?/[!-~]+", url):
            raise ValueError("it must begin with https://, http:// or /, and have visible ASCII characters only")
        return url


class _FlatSettings(
    BaseSettings,
    DatabaseSettings,
    MediaSettings,
    KeyringSettings,
    FaceIdSettings,
    RulesSettings,
    BillingSettings,
    SignatureSettings,
    LimitSettings,
    WebhookSettings,
    ConsoleSettings,
    OidcSettings,
    ProcessSettings,
):
    """All slices at one level, as users write them."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
        secrets_dir=_SECRETS if _SECRETS.is_dir() else None,
        toml_file=_TOML,
    )

    @model_validator(mode="after")
    def _rules_have_accounts(self) -> Self:
        for rule_id, rule in self.rules.items():
            if rule.account not in self.all_accounts:
                raise ValueError(f"rules.{rule_id} names an account that [accounts] does not contain")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Adds the TOML file as the last source."""
        toml = TomlConfigSettingsSource(settings_cls)
        return init_settings, env_settings, file_secret_settings, dotenv_settings, toml


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, one slice per part of the service. `docs/settings.md` describes them."""

    database: DatabaseSettings
    media: MediaSettings
    keyring: KeyringSettings
    faceid: FaceIdSettings
    rules: RulesSettings
    billing: BillingSettings
    signatures: SignatureSettings
    limits: LimitSettings
    webhooks: WebhookSettings
    console: ConsoleSettings
    oidc: OidcSettings
    process: ProcessSettings

    @classmethod
    def read(cls, **values: Any) -> Self:
        """Reads the settings from their sources; `values` override them.

        Raises:
            ValidationError: a setting is invalid.
        """
        return cls._compose(_FlatSettings(**values))

    @classmethod
    def default(cls, **values: Any) -> Self:
        """Returns the defaults with `values`, without reading any source."""
        return cls._compose(_FlatSettings.model_construct(**values))

    @classmethod
    def _compose(cls, flat: _FlatSettings) -> Self:
        def cut(kind: type[Slice]) -> Slice:
            # Validated already, together.
            return kind.model_construct(**{name: getattr(flat, name) for name in kind.model_fields})

        return cls(
            database=cut(DatabaseSettings),
            media=cut(MediaSettings),
            keyring=cut(KeyringSettings),
            faceid=cut(FaceIdSettings),
            rules=cut(RulesSettings),
            billing=cut(BillingSettings),
            signatures=cut(SignatureSettings),
            limits=cut(LimitSettings),
            webhooks=cut(WebhookSettings),
            console=cut(ConsoleSettings),
            oidc=cut(OidcSettings),
            process=cut(ProcessSettings),
        )


def read_settings() -> Settings:
    """Reads the settings of this process.

    Raises:
        ConfigurationError: a setting is invalid. The sentence names it but does not quote its value.
    """
    _check_toml()
    try:
        return Settings.read()
    except ValidationError as error:
        raise ConfigurationError(_sentence(error)) from None
    except (OSError, ValueError) as error:
        # Malformed UTF-8, or an unreadable file.
        problem = type(error).__name__
        raise ConfigurationError(f"{_TOML}, .env or a file in {_SECRETS} cannot be read: {problem}.") from None


def misspelt_variables() -> Mapping[str, str]:
    """Returns the variables of the environment and `.env` that are almost the name of a setting, with that name."""
    known = {name.upper() for name in _FlatSettings.model_fields}
    names = {*os.environ, *map(str.upper, DotEnvSettingsSource(_FlatSettings).env_vars)}
    nearest = {name: get_close_matches(name.upper(), known, n=1, cutoff=_ALMOST) for name in sorted(names)}
    return {name: found[0] for name, found in nearest.items() if found and name.upper() not in known}


def _check_toml() -> None:
    """Checks the syntax and all names of the TOML file. Other sources also have variables of other programs.

    Raises:
        ConfigurationError: the file is malformed, or a name is unknown. The sentence quotes no value.
    """
    try:
        text = _TOML.read_text(encoding="utf-8")
        if text.startswith("\ufeff"):
            # Invisible in editors, so the position of the error would not help.
            raise ConfigurationError(f"{_TOML} begins with a byte order mark. Save it as UTF-8 without one.") from None
        values = tomllib.loads(text)
    except FileNotFoundError:
        return
    except tomllib.TOMLDecodeError as error:
        # The rest of the message may quote the file.
        place = re.search(r"line \d+, column \d+", str(error))
        raise ConfigurationError(f"{_TOML} is not valid TOML: {place.group() if place else 'at its end'}.") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{_TOML} cannot be read: {type(error).__name__}.") from None
    for name, known in _unknown_names(values):
        nearest = get_close_matches(name.rpartition(".")[2].lower(), known, n=1)
        hint = f"; the nearest name is {nearest[0]}" if nearest else ""
        raise ConfigurationError(f"{_TOML} has the unknown setting {name}{hint}.") from None


def _unknown_names(values: Mapping[str, Any]) -> Iterator[tuple[str, Collection[str]]]:
    """Yields each unknown name of the file, and the valid names of its table."""
    for name, value in values.items():
        # In either case, like variables.
        if name.lower() not in _FlatSettings.model_fields:
            yield name, _FlatSettings.model_fields
        elif name.lower() in _TABLES and isinstance(value, dict):
            known = _TABLES[name.lower()].model_fields
            for key, entry in value.items():
                inner_names = entry if isinstance(entry, dict) else ()
                yield from ((f"{name}.{key}.{inner}", known) for inner in inner_names if inner not in known)


def _sentence(error: ValidationError) -> str:
    """Describes the first invalid setting. The messages of pydantic and of our validators quote no value."""
    first = error.errors(include_input=False, include_context=False, include_url=False)[0]
    name = ".".join(str(place) for place in first["loc"]).upper() or "A setting"
    return f"{name} is not valid: {first['msg'].removeprefix('Value error, ')}."
