"""Settings and URLs of both databases: which are rejected, and that none is quoted."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import text

from app.errors import ConfigurationError
from app.storage.database import Database, DatabaseSettings


@pytest.mark.parametrize(
    "url",
    [
        "secret",
        "://secret",
        "mysql+aiomysql://anna:secret@host/db",
        "sqlite:///secret.db",
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///:memory:",
        "postgresql://anna:secret@host/db",
        "postgresql+psycopg://anna:secret@host/db",
        "postgresql+asyncpg://anna:secret@host:secret/db",
        "postgresql+asyncpg://anna:secret@host/db?sslmode=require",
    ],
)
def test_unsupported_database_is_rejected_without_its_url(url: str) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL") as raised:
        Database(DatabaseSettings(database_url=SecretStr(url)))

    assert "secret" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize("values", [{"database_url": 5}, {"database_pool_size": 0}, {"database_pool_size": "hunter2"}])
def test_invalid_setting_is_not_quoted(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as raised:
        DatabaseSettings.model_validate({"database_url": "postgresql+asyncpg://anna:hunter2@host/db", **values})

    assert "hunter2" not in str(raised.value)


def test_settings_do_not_show_the_password() -> None:
    settings = DatabaseSettings(database_url=SecretStr("postgresql+asyncpg://anna:hunter2@host/db"))

    assert "hunter2" not in f"{settings!r} {settings} {settings.url()!r} {settings.model_dump()} {Database(settings)!r}"


@pytest.mark.parametrize("name", ["plain", "what?x=y", "100%25 #1"])
async def test_default_database_is_a_file_in_the_data_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    database = Database(DatabaseSettings(data_dir=folder))

    async with database.write() as tx:
        await tx.connection.execute(text("CREATE TABLE proof (id INTEGER)"))
    await database.aclose()

    assert (folder / "faceid-results.db").is_file()


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("postgresql+asyncpg://u@h/d?ssl=require&sslrootcert=x", "sslrootcert"),
        ("postgresql+asyncpg://u@h/d?application_name=x", "application_name"),
        ("postgresql+asyncpg://u@h/d?statement_cache_size=0", "statement_cache_size"),
        ("postgresql+asyncpg://u@h/d?loop=x", "loop"),
        ("sqlite+aiosqlite:////tmp/x.db?mode=ro", "mode"),
    ],
)
def test_unknown_option_of_the_url_is_named(url: str, option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^DATABASE_URL contains an unknown option: {option}.$"):
        Database(DatabaseSettings(database_url=SecretStr(url)))


@pytest.mark.parametrize("setting", ["database_url", "database_listen_url"])
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+asyncpg://u@h:99999/d", "an invalid port"),
        ("postgresql+asyncpg://u@h:0/d", "an invalid port"),
        ("postgresql+asyncpg://u@/d?host=a:1&host=b", "several hosts, and not each with a valid port"),
        ("postgresql+asyncpg://u@/d?host=a:1&host=b:x", "several hosts, and not each with a valid port"),
        ("postgresql+asyncpg://u@h/d?ssl=bogus", "an invalid value of the option ssl"),
        ("postgresql+asyncpg://u@h/d?ssl=require&ssl=disable", "an invalid value of the option ssl"),
        ("postgresql+asyncpg://u@h/d?prepared_statement_cache_size=x", "an invalid value of the option prepared_"),
        ("postgresql+asyncpg://u@h/d?statement_cache_size=0", "an unknown option: statement_cache_size"),
    ],
)
def test_url_that_the_driver_cannot_use_is_rejected(setting: str, url: str, expected: str) -> None:
    urls = {"database_url": "postgresql+asyncpg://u@h/d", setting: url}

    with pytest.raises(ConfigurationError, match=f"^{setting.upper()} contains {expected}"):
        Database(DatabaseSettings(**{name: SecretStr(value) for name, value in urls.items()}))


@pytest.mark.parametrize("option", ["timeout", "cached_statements"])
def test_option_of_sqlite_must_be_a_number(option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^DATABASE_URL contains an invalid value of the option {option}.$"):
        Database(DatabaseSettings(database_url=SecretStr(f"sqlite+aiosqlite:////tmp/x.db?{option}=x")))
