"""Accounts get their credentials from settings, or from a file that is read again when it changes."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from app.errors import ConfigurationError
from app.faceid.credentials import AccountSettings, CredentialSource, FaceIdSettings
from app.faceid.signing import Credentials

PAIR = AccountSettings(secret_id="AKIDPAIR", secret_key=SecretStr("key"))
FILE = "[default]\nsecret_id = AKIDFIRST\nsecret_key = first%key\ntoken = token\n"


def test_settings_without_account_name_are_the_default_account() -> None:
    settings = FaceIdSettings(tencentcloud_secret_id="AKIDPAIR", tencentcloud_secret_key=SecretStr("key"))

    assert settings.all_accounts == {"default": PAIR}


def test_named_accounts_are_added_to_the_default_account() -> None:
    settings = FaceIdSettings.model_validate({"accounts": {"bank": {"secret_id": "AKIDPAIR", "secret_key": "key"}}})

    assert settings.all_accounts == {"default": AccountSettings(), "bank": PAIR}


@pytest.mark.parametrize("account", [{"secret_kei": "hunter2"}, {"requests_per_second": 0}, {"secret_id": "hunter2 "}])
def test_invalid_account_is_rejected_and_not_quoted(account: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as raised:
        FaceIdSettings.model_validate({"accounts": {"bank": account}})

    assert "hunter2" not in str(raised.value)


def test_empty_token_counts_as_none() -> None:
    settings = PAIR.model_copy(update={"token": SecretStr("")})

    assert CredentialSource("default", settings).current() == Credentials("AKIDPAIR", "key", None)


@pytest.mark.parametrize(
    ("account", "settings", "sentence"),
    [
        (
            "default",
            AccountSettings(),
            "TENCENTCLOUD_SECRET_ID is not set. It is required for calls to Tencent.",
        ),
        (
            "default",
            AccountSettings(secret_id="AKIDPAIR"),
            "TENCENTCLOUD_SECRET_KEY is not set. It is required for calls to Tencent.",
        ),
        ("bank", AccountSettings(), "ACCOUNTS.BANK has no secret_id and secret_key, and no credentials_file."),
        (
            "bank",
            AccountSettings(credentials_file=Path("/nowhere")),
            "Cannot read or parse the credentials file of account bank.",
        ),
    ],
)
def test_account_without_credentials_is_an_error(account: str, settings: AccountSettings, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as stopped:
        CredentialSource(account, settings)

    assert stopped.value.detail == sentence


def test_changed_credentials_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(FILE)
    source = CredentialSource("default", AccountSettings(credentials_file=file))

    assert source.current() == Credentials("AKIDFIRST", "first%key", "token")
    (tmp_path / "new").write_text("[default]\nsecret_id = AKIDSECOND\nsecret_key = second\n")
    (tmp_path / "new").rename(file)
    assert source.current() == Credentials("AKIDSECOND", "second", None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[default]\nsecret_id = AKID\n",
        "no section",
        "[default]\nsecret_id = AKID\nsecret_key =\n",
        "[default]\nsecret_id = a b\nsecret_key = key\n",
    ],
)
def test_invalid_credentials_file_keeps_the_old_credentials(tmp_path: Path, text: str) -> None:
    file = tmp_path / "credentials"
    file.write_text(FILE)
    source = CredentialSource("default", AccountSettings(credentials_file=file))

    file.write_text(text)

    assert source.current() == source.current() == Credentials("AKIDFIRST", "first%key", "token")
    file.unlink()
    assert source.current() == Credentials("AKIDFIRST", "first%key", "token")


@pytest.mark.parametrize("name", ["", "Bank", "a b", "a" * 33])
def test_name_of_an_account_is_restricted(name: str) -> None:
    with pytest.raises(ValidationError):
        FaceIdSettings.model_validate({"accounts": {name: {"secret_id": "AKIDPAIR", "secret_key": "key"}}})
