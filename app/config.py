"""The settings: the slices that the adapters and services define, composed, and read once.

From the strongest to the weakest: environment, files in `/run/secrets` (named like the setting, in lower case), `.env`,
`faceid-results.toml`.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from app.errors import SetUpError
from app.faceid.credentials import FaceIdSettings
from app.sealing.keyring import KeyringSettings
from app.services.receive import ReceiveSettings
from app.services.reconcile import ReconcileSettings
from app.services.rules import RulesSettings
from app.services.signatures import SignatureSettings
from app.storage.database import DatabaseSettings
from app.storage.media import MediaSettings

_SECRETS = Path("/run/secrets")


class Settings(
    BaseSettings,
    DatabaseSettings,
    MediaSettings,
    KeyringSettings,
    FaceIdSettings,
    ReceiveSettings,
    RulesSettings,
    ReconcileSettings,
    SignatureSettings,
):
    """All settings. The README's table describes them."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
        secrets_dir=_SECRETS if _SECRETS.is_dir() else None,
        toml_file="faceid-results.toml",
    )

    worker_concurrency: int = Field(default=16, ge=1, le=256)
    redirect_page_url: str = Field(default="/v1/callbacks/done", pattern=r"^(https?:/)?/[!-~]+$")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="after")
    def _rules_have_accounts(self) -> Self:
        for rule_id, rule in self.rules.items():
            if rule.account not in self.all_accounts:
                raise ValueError(f"rules.{rule_id} names an account that is not below [accounts]")
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
        """Puts the TOML file last."""
        toml = TomlConfigSettingsSource(settings_cls)
        return init_settings, env_settings, file_secret_settings, dotenv_settings, toml


def read_settings() -> Settings:
    """The settings of this process.

    Raises:
        SetUpError: one is wrong; the sentence names it and not its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SetUpError(_sentence(error)) from None
    except (OSError, ValueError) as error:  # of TOML, of UTF-8
        problem = type(error).__name__
        raise SetUpError(f"faceid-results.toml, .env or a file in {_SECRETS} cannot be read: {problem}.") from None


def _sentence(error: ValidationError) -> str:
    """What is wrong with the first wrong setting. Pydantic's messages, and those of our validators, quote no value."""
    first = error.errors(include_input=False, include_context=False, include_url=False)[0]
    name = ".".join(str(place) for place in first["loc"]).upper() or "A setting"
    return f"{name} is not valid: {first['msg'].removeprefix('Value error, ')}."
