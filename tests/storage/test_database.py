"""Transactions keep their word on both databases; their troubles come out as ours, without a word of the driver's."""

import asyncio
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr, ValidationError
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.domain.verification import Verification
from app.errors import NotFoundError, ServiceError, SetUpError, UnavailableError
from app.storage.database import Database, DatabaseSettings
from app.storage.verifications import VerificationStore
from tests.support.databases import opened

STORE = VerificationStore()
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
PERSON = "000000199505130017"


def verification() -> Verification:
    return Verification(client="default", biz_token="token", rule_id="1", due_at=NOW, deadline_at=NOW)


async def pragma(database: Database, name: str) -> object:
    async with database.read() as tx:
        return await tx.scalar(text(f"PRAGMA {name}"))


async def test_what_a_block_wrote_is_there_when_it_is_left(database: Database) -> None:
    async with database.write() as tx:
        added = await STORE.add(tx, verification())

    async with database.read() as tx:
        assert await STORE.find(tx, "token") == added


async def test_what_a_block_wrote_is_gone_if_it_raised(database: Database) -> None:
    async def fail() -> None:
        async with database.write() as tx:
            await STORE.add(tx, verification())
            raise NotFoundError("after the insert")

    with pytest.raises(NotFoundError):
        await fail()

    async with database.write() as tx:
        assert await STORE.add(tx, verification()) is not None


async def test_a_block_that_is_cancelled_leaves_nothing_and_blocks_nobody(database: Database) -> None:
    written = asyncio.Event()

    async def write_for_ever() -> None:
        async with database.write() as tx:
            await STORE.add(tx, verification())
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write_for_ever())
    await written.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    async with database.write() as tx:
        assert await STORE.add(tx, verification()) is not None


async def test_a_block_that_takes_too_long_is_rolled_back(database: Database) -> None:
    async def hang() -> None:
        async with database.write(seconds=0.05) as tx:
            await STORE.add(tx, verification())
            await asyncio.Event().wait()

    with pytest.raises(UnavailableError):
        await hang()

    async with database.write() as tx:
        assert await STORE.add(tx, verification()) is not None


async def test_all_of_a_read_sees_the_same_instant(database: Database) -> None:
    async with database.read() as tx:
        before = await STORE.find(tx, "token")
        async with database.write() as other:
            await STORE.add(other, verification())
        after = await STORE.find(tx, "token")
    async with database.read() as tx:
        later = await STORE.find(tx, "token")

    assert (before, after) == (None, None)
    assert later is not None


async def test_writers_of_two_processes_wait_for_each_other(database_url: str) -> None:
    async def count(database: Database) -> None:
        for _ in range(10):
            async with database.write() as tx:
                row = await STORE.lock(tx, "token")
                assert row is not None
                await STORE.save(tx, row, replace(row, attempts=row.attempts + 1))

    async with opened(database_url) as one, opened(database_url) as other:
        async with one.write() as tx:
            await STORE.add(tx, verification())
        await asyncio.gather(*(count(database) for database in (one, other, one, other)))
        async with one.read() as tx:
            row = await STORE.find(tx, "token")

    assert row is not None
    assert row.attempts == 40


async def test_more_readers_than_connections_take_turns(database_url: str) -> None:
    async with opened(database_url, database_pool_size=2) as database:

        async def read() -> object:
            async with database.read() as tx:
                return await tx.scalar(text("SELECT 1"))

        assert await asyncio.gather(*(read() for _ in range(50))) == [1] * 50


async def test_a_pool_that_stays_exhausted_is_unavailable(database_url: str) -> None:
    async with opened(database_url, database_pool_size=1) as database, database.read():
        with pytest.raises(UnavailableError):
            async with database.write(seconds=0.05):
                pass


async def test_a_refused_row_is_not_quoted(database: Database) -> None:
    with structlog.testing.capture_logs() as logs, pytest.raises(ServiceError) as raised:
        async with database.write() as tx:
            await tx.execute(
                text("INSERT INTO detection (verification_id, err_msg) VALUES (4711, :err_msg)"),
                {"err_msg": PERSON},
            )

    assert (type(raised.value), raised.value.code) == (ServiceError, "internal_error")
    assert raised.value.__suppress_context__
    for told in (str(raised.value), repr(logs)):
        assert PERSON not in told
        assert "4711" not in told
    assert [entry["event"] for entry in logs] == ["database_failed"]


async def test_a_failed_statement_is_unavailable_without_its_text(database: Database) -> None:
    with structlog.testing.capture_logs() as logs, pytest.raises(UnavailableError) as raised:
        async with database.read() as tx:
            await tx.execute(text("SELECT :person FROM nowhere"), {"person": PERSON})

    assert str(raised.value) == "The database does not answer."
    assert PERSON not in repr(logs)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:1/x?ssl=disable"])
async def test_an_unreachable_server_is_unavailable_and_its_password_stays_secret(address: str) -> None:
    async with opened(f"postgresql+asyncpg://anna:hunter2@{address}") as database:
        with structlog.testing.capture_logs() as logs, pytest.raises(UnavailableError) as raised:
            async with database.read():
                pass

    assert "hunter2" not in f"{raised.value!r} {logs!r} {database.engine!r} {database.__dict__!r}"


async def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    async with opened(f"sqlite+aiosqlite:///{tmp_path}/missing/test.db") as database:
        with pytest.raises(UnavailableError):
            async with database.read():
                pass


async def test_a_lost_connection_is_replaced(postgres_url: str) -> None:
    async with opened(postgres_url, database_pool_size=1) as database, opened(postgres_url) as other:
        async with database.read() as tx:
            pid = await tx.scalar(text("SELECT pg_backend_pid()"))
        async with other.write() as tx:
            await tx.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})

        async with database.read() as tx:
            assert await tx.scalar(text("SELECT pg_backend_pid()")) != pid


async def test_a_connection_that_is_lost_on_the_way_is_unavailable(postgres_url: str) -> None:
    async with opened(postgres_url) as database, opened(postgres_url) as other:

        async def lose() -> None:
            async with database.write() as tx, other.write() as killer:
                await STORE.add(tx, verification())
                pid = await tx.scalar(text("SELECT pg_backend_pid()"))
                await killer.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})

        with pytest.raises(UnavailableError):
            await lose()

        async with database.write() as tx:
            assert await STORE.add(tx, verification()) is not None


async def test_the_embedded_database_is_durable_and_checks_references(sqlite_url: str) -> None:
    async with opened(sqlite_url) as database:
        assert await pragma(database, "journal_mode") == "wal"
        assert await pragma(database, "synchronous") == 2
        assert await pragma(database, "foreign_keys") == 1


async def test_a_writer_of_the_embedded_database_has_the_lock_from_its_first_look_on(sqlite_url: str) -> None:
    other = sqlite3.connect(sqlite_url.partition("///")[2], timeout=0, isolation_level=None)
    async with opened(sqlite_url) as database:
        async with database.write() as tx:
            await tx.execute(text("SELECT * FROM quota"))
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
        async with database.read() as tx:
            await tx.execute(text("SELECT * FROM quota"))
            other.execute("BEGIN IMMEDIATE")
    other.close()


async def test_what_could_not_begin_writes_nothing_however_often_it_is_tried(sqlite_url: str) -> None:
    other = sqlite3.connect(sqlite_url.partition("///")[2], timeout=0, isolation_level=None)
    insert = text("INSERT INTO quota (account, tat_us) VALUES ('a', 1)")
    async with opened(sqlite_url) as database:
        async with database.read() as tx:  # of the one connection that the pool has so far
            await tx.execute(text("PRAGMA busy_timeout=0"))
        other.execute("BEGIN IMMEDIATE")
        async with database.write() as tx:
            with pytest.raises(OperationalError, match="locked"):
                await tx.execute(insert)
            other.execute("ROLLBACK")
            await tx.execute(insert)
            await tx.rollback()
        async with database.read() as tx:
            assert await tx.scalar(text("SELECT count(*) FROM quota")) == 0
    other.close()


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
def test_another_database_is_refused_by_name_and_not_by_value(url: str) -> None:
    with pytest.raises(SetUpError, match="DATABASE_URL") as raised:
        Database(DatabaseSettings(database_url=SecretStr(url)))

    assert "secret" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize("values", [{"database_url": 5}, {"database_pool_size": 0}, {"database_pool_size": "hunter2"}])
def test_a_wrong_setting_is_not_quoted(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as raised:
        DatabaseSettings.model_validate({"database_url": "postgresql+asyncpg://anna:hunter2@host/db", **values})

    assert "hunter2" not in str(raised.value)


def test_settings_do_not_show_the_password() -> None:
    settings = DatabaseSettings(database_url=SecretStr("postgresql+asyncpg://anna:hunter2@host/db"))

    assert "hunter2" not in f"{settings!r} {settings} {settings.url()!r} {settings.model_dump()} {Database(settings)!r}"


@pytest.mark.parametrize("name", ["plain", "what?x=y", "100%25 #1"])
async def test_the_default_is_a_file_in_the_data_folder_whatever_its_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    database = Database(DatabaseSettings(data_dir=folder))

    async with database.write() as tx:
        await tx.execute(text("CREATE TABLE proof (id INTEGER)"))
    await database.aclose()

    assert (folder / "faceid-results.db").is_file()


_ANOTHER = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(c.execute(sys.argv[2]).fetchone()[0]); c.close()"
)


async def test_a_process_that_leaves_does_not_take_the_log_away_from_those_that_stay(tmp_path: Path) -> None:
    """To open and close SQLite's file beside it drops this process's locks: the next to leave deletes the log."""
    file = tmp_path / "test.db"
    database = Database(DatabaseSettings(database_url=SecretStr(f"sqlite+aiosqlite:///{file}")))
    async with database.write() as tx:
        await tx.execute(text("CREATE TABLE note (words TEXT)"))
    async with database.read() as one, database.read() as other:  # two connections
        await one.execute(text("SELECT * FROM note"))
        await other.execute(text("SELECT * FROM note"))

    count = [sys.executable, "-c", _ANOTHER, str(file), "SELECT count(*) FROM note"]
    before = await asyncio.to_thread(subprocess.check_output, count)
    async with database.write() as tx:
        await tx.execute(text("INSERT INTO note VALUES ('kept')"))
    after = await asyncio.to_thread(subprocess.check_output, count)
    await database.aclose()

    assert (before, after) == (b"0\n", b"1\n")
