"""Settings: their sources, and errors that name an invalid setting and never quote its value."""

import os
from base64 import b64encode
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.config import Settings, misspelt_variables, read_settings
from app.domain.api_key import Scope
from app.domain.detection import InfoType
from app.domain.rule import Enhanced, Rule
from app.domain.single_sign_on import Role
from app.errors import ConfigurationError
from app.faceid.credentials import AccountSettings
from tests.support.service import SETTING_NAMES

CANARY = "hunter2"
SECRET = f"whsec_{b64encode(b'hunter2 ' * 3).decode()}"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Changes to an empty folder, with no setting in the environment."""
    for name in os.environ:
        if name.lower() in SETTING_NAMES:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_text() -> str:
    with pytest.raises(ConfigurationError) as raised:
        read_settings()
    assert raised.value.__suppress_context__
    return str(raised.value)


def all_texts(settings: Settings) -> str:
    """Returns all texts that the settings can turn into."""
    slices = [getattr(settings, field.name) for field in fields(settings)]
    dumps = [(part.model_dump(), part.model_dump_json()) for part in slices]
    return f"{settings!r} {settings} {dumps}"


def test_settings_have_defaults(here: Path) -> None:
    settings = read_settings()

    assert settings.rules.faceid_info_type == "0"
    assert (settings.rules.accept_unknown_rules, settings.rules.known_rule_ids) == (False, [])
    assert settings.faceid.faceid_requests_per_second == 46
    assert settings.process.worker_concurrency == 16
    assert settings.faceid.faceid_endpoint == "https://faceid.tencentcloudapi.com"
    assert (settings.database.url().drivername, settings.database.url().database) == (
        "sqlite+aiosqlite",
        f"{here}/data/faceid-results.db",
    )
    assert settings.media.media_folder == here / "data" / "media"
    assert [*here.iterdir()] == []


def test_environment_overrides_secrets_which_override_the_files(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = here / "secrets"
    secrets.mkdir()
    names = ["faceid_rule_id", "tencentcloud_secret_id", "faceid_endpoint", "log_level"]
    levels = ["DEBUG", "INFO", "WARNING", "ERROR"]
    toml = [f'{name} = "{level}"' for name, level in zip(names, ["toml", "toml", "toml", levels[3]], strict=True)]
    (here / "faceid-results.toml").write_text("\n".join(toml))
    (here / ".env").write_text("FACEID_RULE_ID=dotenv\nTENCENTCLOUD_SECRET_ID=dotenv\nFACEID_ENDPOINT=dotenv\n")
    (secrets / "faceid_rule_id").write_text("secret\n")
    (secrets / "tencentcloud_secret_id").write_text("secret\n")
    monkeypatch.setenv("FACEID_RULE_ID", "environment")

    settings = Settings.read(_secrets_dir=secrets)

    assert [
        settings.rules.faceid_rule_id,
        settings.faceid.tencentcloud_secret_id,
        settings.faceid.faceid_endpoint,
        settings.process.log_level,
    ] == ["environment", "secret", "dotenv", "ERROR"]


@pytest.mark.parametrize("name", ["faceid_rule_id", "FACEID_RULE_ID"])
def test_file_accepts_names_in_either_case(here: Path, name: str) -> None:
    (here / "faceid-results.toml").write_text(f'{name} = "7"\nfaceid_requests_per_second = 20\n')

    settings = read_settings()

    assert (settings.rules.faceid_rule_id, settings.faceid.faceid_requests_per_second) == ("7", 20)


TOML = """
[accounts.bank]
secret_id = "AKIDBANK"
credentials_file = "/run/secrets/bank"
requests_per_second = 90

[rules.7]
account = "bank"
client = "shop"
info_type = "134"
text_first = true
redirect_state = true

[rules.8]
enhanced = true
best_frames = 3
clients = ["lending", "shop"]
"""


def test_accounts_and_rules_are_read_from_the_file(here: Path) -> None:
    (here / "faceid-results.toml").write_text(TOML)

    settings = read_settings()

    bank = AccountSettings(secret_id="AKIDBANK", credentials_file=Path("/run/secrets/bank"), requests_per_second=90)
    assert settings.faceid.all_accounts == {"default": AccountSettings(), "bank": bank}
    assert [settings.rules.rule(rule_id) for rule_id in ("7", "8", "9")] == [
        Rule(account="bank", client="shop", info_type=InfoType("134"), text_first=True, redirect_state=True),
        Rule(client="lending", clients=frozenset({"lending", "shop"}), enhanced=Enhanced(best_frames=3)),
        Rule(),
    ]


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ('[rules.7]\nclient = "hunter2"\nclients = ["b"]', "RULES.7 is not valid: client must be one of clients."),
        (
            '[rules.7]\naccount = "hunter2"',
            "A setting is not valid: rules.7 names an account that [accounts] does not contain.",
        ),
        (
            "[rules.7]\nbest_frames = 3",
            "RULES.7 is not valid: best_frames, cut_id_card and id_card_avatar need enhanced = true.",
        ),
        ('[rules.7]\ninfo_type = "hunter2"', "RULES.7.INFO_TYPE is not valid: InfoType is 0 for everything, or any of"),
        (
            '[rules.7]\ninfotype = "hunter2"',
            "faceid-results.toml has the unknown setting rules.7.infotype; the nearest name is info_type.",
        ),
        (
            '[accounts.bank]\nsecretkey = "hunter2"',
            "faceid-results.toml has the unknown setting accounts.bank.secretkey; the nearest name is secret_key.",
        ),
        (
            '[callbacks.shop]\nsecret = ["hunter2"]',
            "faceid-results.toml has the unknown setting callbacks.shop.secret; the nearest name is secrets.",
        ),
        (
            '[rule.7]\ninfo_type = "hunter2"',
            "faceid-results.toml has the unknown setting rule; the nearest name is rules.",
        ),
        (
            'FACEID_RULEID = "hunter2"',
            "faceid-results.toml has the unknown setting FACEID_RULEID; the nearest name is faceid_rule_id.",
        ),
        ('colour = "hunter2"', "faceid-results.toml has the unknown setting colour."),
        ("[rules]\n7 = 'hunter2'", "RULES.7 is not valid: "),
        ("\ufeffdata_dir = 'x'", "faceid-results.toml begins with a byte order mark. Save it as UTF-8 without one."),
        ("data_dir = 'x'\nhunter2 == 1", "faceid-results.toml is not valid TOML: line 2, column 10."),
        ("secrets = ['hunter2'", "faceid-results.toml is not valid TOML: "),
        (
            '[accounts.bank]\nsecret_key = "hunter2 x"',
            "ACCOUNTS.BANK.SECRET_KEY is not valid: it may only have visible ASCII characters, and no spaces.",
        ),
        (
            '[rules.7]\ninfo_type = "234"\nredirect_state = true',
            "A setting is not valid: rules.7 has redirect_state, so its info_type must request the text: 0 or 1.",
        ),
        (
            '[callbacks.shop]\nsecrets = ["hunter2"]',
            "CALLBACKS.SHOP.SECRETS is not valid: each secret is whsec_ and the base64 of 24 to 64 bytes.",
        ),
        (
            f'[callbacks.a]\nsecrets = ["{SECRET}"]\n[callbacks.b]\nsecrets = ["{SECRET}"]',
            "A setting is not valid: a secret in [callbacks] is used by two clients.",
        ),
        (
            '[oidc_roles.staff]\nclient = "hunter2"\nscope = ["results:read"]',
            "faceid-results.toml has the unknown setting oidc_roles.staff.scope; the nearest name is scopes.",
        ),
        ('[oidc_roles.staff]\nscopes = ["hunter2"]', "OIDC_ROLES.STAFF.SCOPES.0 is not valid: Input should be "),
        ("[oidc_roles.staff]\nscopes = []", "OIDC_ROLES.STAFF.SCOPES is not valid: "),
        ('[accounts."hunter 2"]\n', "ACCOUNTS.HUNTER 2.[KEY] is not valid: a name has 1 to 32"),
    ],
)
def test_invalid_account_or_rule_is_named_and_not_quoted(here: Path, toml: str, sentence: str) -> None:
    (here / "faceid-results.toml").write_text(toml)

    found = error_text()

    assert found.startswith(sentence)
    assert "hunter2" not in found
    assert SECRET not in found


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"OIDC_CLIENT_ID": ""}, "A setting is not valid: OIDC_CLIENT_ID is required because OIDC_ISSUER is set."),
        ({"OIDC_CLIENT_SECRET": ""}, "A setting is not valid: OIDC_CLIENT_SECRET is required because "),
        ({"PUBLIC_URL": ""}, "A setting is not valid: PUBLIC_URL is required because OIDC_ISSUER is set."),
        ({"PUBLIC_URL": "http://hunter2.test"}, "PUBLIC_URL is not valid: it must be https://host"),
        ({"PUBLIC_URL": "https://hunter2.test/admin"}, "PUBLIC_URL is not valid: it must be https://host"),
        ({"OIDC_ISSUER": "http://hunter2.test"}, "OIDC_ISSUER is not valid: it must be the issuer"),
        ({"OIDC_ISSUER": "https://me:hunter2@id.test"}, "OIDC_ISSUER is not valid: it must be the issuer"),
        ({"OIDC_ISSUER": "https://id.test?hunter2"}, "OIDC_ISSUER is not valid: it must be the issuer"),
        ({"OIDC_ISSUER": "https://id.test:hunter2"}, "OIDC_ISSUER is not valid: it must be the issuer"),
        ({"OIDC_SCOPES": "hunter2"}, "OIDC_SCOPES is not valid: it must contain openid."),
    ],
    ids=str,
)
def test_incomplete_single_sign_on_is_named_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], sentence: str
) -> None:
    complete = {
        "OIDC_ISSUER": "https://id.test/realms/staff",
        "OIDC_CLIENT_ID": "console",
        "OIDC_CLIENT_SECRET": "hunter2 secret",
        "PUBLIC_URL": "https://faceid.test/",
    }
    for name, value in (complete | changes).items():
        monkeypatch.setenv(name, value)

    found = error_text()

    assert found.startswith(sentence)
    assert "hunter2" not in found


def test_roles_are_those_of_the_environment_and_the_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIDC_ADMIN_VALUES", " admins, ,ops ")
    (here / "faceid-results.toml").write_text(
        '[oidc_roles.support]\nclient = "shop"\nscopes = ["results:read"]\n[oidc_roles.ops]\nscopes = ["media:read"]'
    )
    oidc = read_settings().oidc
    admin = Role("default", frozenset({Scope.ADMIN}))

    assert list(oidc.roles.items()) == [
        ("admins", admin),
        ("ops", admin),
        ("support", Role("shop", frozenset({Scope.RESULTS_READ}))),
    ]
    assert Settings.default().oidc.roles == {}


def test_callback_secrets_are_read_from_environment_and_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = [f"whsec_{b64encode(bytes([number]) * 24).decode()}" for number in range(4)]
    monkeypatch.setenv("CALLBACK_SECRETS", f" {secrets[0]}  {secrets[1]} ")
    (here / "faceid-results.toml").write_text(
        f'[callbacks.default]\nsecrets = ["{secrets[2]}"]\n[callbacks.shop]\nsecrets = ["{secrets[3]}"]'
    )

    settings = read_settings()

    assert {
        client: [secret.get_secret_value() for secret in of]
        for client, of in settings.signatures.secrets_by_client.items()
    } == {
        "default": secrets[:3],
        "shop": secrets[3:],
    }
    assert not any(secret in all_texts(settings) for secret in secrets)


def test_variable_that_is_almost_a_setting_is_found(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / ".env").write_text("WORKER_CONCURENCY=4\nLISTEN=8000\n")
    monkeypatch.setenv("FACEID_RULEID", "7")
    monkeypatch.setenv("TENCENTCLOUD_REGION", "ap-guangzhou")
    monkeypatch.setenv("FACEID_RULE_ID", "7")

    assert misspelt_variables() == {"FACEID_RULEID": "FACEID_RULE_ID", "WORKER_CONCURENCY": "WORKER_CONCURRENCY"}


def test_empty_variable_counts_as_unset(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / ".env").write_text("FACEID_TIMEOUT_SECONDS=\nDATABASE_URL=\n")
    for name in ("FACEID_INFO_TYPE", "TENCENTCLOUD_TOKEN", "MEDIA_URL", "WORKER_CONCURRENCY"):
        monkeypatch.setenv(name, "")

    assert read_settings() == Settings.read(_env_file=None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CALLBACK_SECRETS", CANARY),
        ("CALLBACK_SECRETS", f"{SECRET} {CANARY}"),
        ("CALLBACK_SECRETS", SECRET[:-4]),
        ("CALLBACK_SECRETS", f"{SECRET[:-4]}!{SECRET[-4:]}"),
        ("CALLBACK_SECRETS", SECRET.removeprefix("whsec_")),
        ("CALLBACK_SECRETS", f"whsec_{b64encode(bytes(65)).decode()}"),
        ("DATABASE_POOL_SIZE", "-77"),
        ("DATABASE_POOL_SIZE", CANARY),
        ("FACEID_INFO_TYPE", CANARY),
        ("FACEID_MAX_BYTES", CANARY),
        ("FACEID_REQUESTS_PER_SECOND", "-77"),
        ("FACEID_REQUESTS_PER_SECOND", "nan"),
        ("FACEID_TIMEOUT_SECONDS", "-7"),
        ("FACEID_TIMEOUT_SECONDS", "inf"),
        ("LOG_LEVEL", CANARY),
        ("MEDIA_URL", f"ftp://anna:{CANARY}@host/"),
        ("AWS_ENDPOINT_URL", f"anna:{CANARY}"),
        ("CONSOLE_TIME_ZONE", CANARY),
        ("CONSOLE_TIME_ZONE", "Etc"),
        ("CONSOLE_TIME_ZONE", "../../etc/passwd"),
        ("REDIRECT_PAGE_URL", f"javascript:{CANARY}"),
        ("TENCENTCLOUD_SECRET_ID", f"{CANARY} "),
        ("TENCENTCLOUD_SECRET_KEY", f"{CANARY} x"),
        ("TENCENTCLOUD_TOKEN", f"{CANARY}\n"),
        ("WORKER_CONCURRENCY", "1000"),
    ],
)
def test_invalid_setting_is_named_in_one_sentence_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    sentence = error_text()

    assert sentence.startswith(f"{name} is not valid: ")
    assert sentence.endswith(".")
    assert value not in sentence
    assert CANARY not in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("value", [CANARY, "[", "https://[::", "1e999", "\udcff", "x" * 300, '["hunter2"]'], ids=ascii)
def test_no_value_of_any_setting_raises_another_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    for name in SETTING_NAMES:
        with monkeypatch.context() as environment, suppress(ConfigurationError):
            environment.setenv(name.upper(), value)
            read_settings()


def test_settings_that_require_each_other_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)

    assert error_text() == "A setting is not valid: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together."


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        (
            "faceid-results.toml",
            b"tencentcloud_secret_key = = 'hunter2'",
            "faceid-results.toml is not valid TOML: line 1, column 27.",
        ),
        ("faceid-results.toml", b"hunter2 = '\xff'", "faceid-results.toml cannot be read: UnicodeDecodeError."),
        (
            ".env",
            b"hunter2 = '\xff'",
            "faceid-results.toml, .env or a file in /run/secrets cannot be read: UnicodeDecodeError.",
        ),
    ],
)
def test_malformed_file_is_not_quoted(here: Path, file: str, content: bytes, expected: str) -> None:
    (here / file).write_bytes(content)

    sentence = error_text()

    assert sentence == expected
    assert CANARY not in sentence


def test_secrets_do_not_appear_in_texts_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
    for name in names:
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("DATABASE_URL", f"postgresql+asyncpg://anna:{CANARY}@host/db")

    settings = read_settings()

    assert CANARY not in all_texts(settings)
    assert settings.faceid.tencentcloud_secret_key == SecretStr(CANARY)
