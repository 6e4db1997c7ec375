"""Transactions of both databases, and the translation of their errors, which must not quote the driver."""

import asyncio
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import text

from app.errors import DiskFullError, NotFoundError, ServiceError, UnavailableError
from app.storage.database import Database, DatabaseSettings
from tests.storage.rows import add, find
from tests.support.databases import opened
from tests.support.rows import MINIMAL, find_row, lock_row

PERSON = "000000199505130017"


async def pragma(database: Database, name: str) -> object:
    async with database.read() as tx:
        return await tx.connection.scalar(text(f"PRAGMA {name}"))


async def test_write_is_committed_at_the_end_of_its_block(database: Database) -> None:
    async with database.write() as tx:
        added = await tx.verifications.add_all([MINIMAL])

    assert await find(database, "minimal") == added[MINIMAL.owner]


async def test_write_is_rolled_back_if_its_block_raises(database: Database) -> None:
    async def fail() -> None:
        async with database.write() as tx:
            await tx.verifications.add_all([MINIMAL])
            raise NotFoundError("after the insert")

    with pytest.raises(NotFoundError):
        await fail()

    async with database.write() as tx:
        assert await tx.verifications.add_all([MINIMAL])


async def test_cancelled_write_is_rolled_back_and_blocks_nobody(database: Database) -> None:
    written = asyncio.Event()

    async def write_for_ever() -> None:
        async with database.write() as tx:
            await tx.verifications.add_all([MINIMAL])
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write_for_ever())
    await written.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    async with database.write() as tx:
        assert await tx.verifications.add_all([MINIMAL])


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_write_cancelled_as_its_statement_ends_releases_its_lock(database: Database, turns: int) -> None:
    begun, loop = asyncio.Event(), asyncio.get_running_loop()

    async def add_one() -> None:
        async with database.write() as tx:
            begun.set()
            await tx.verifications.add_all([MINIMAL])

    task = asyncio.create_task(add_one())
    await begun.wait()

    def cancel_in(turns: int) -> None:
        loop.call_soon(cancel_in, turns - 1) if turns else task.cancel()

    # The statement ends while the loop is busy. The task is cancelled before its result arrives, or right after that.
    # During the commit its row may still be stored.
    loop.call_soon(time.sleep, 0.2)
    cancel_in(turns)
    await asyncio.wait([task])

    async with database.write(seconds=2) as tx:
        assert await tx.verifications.add_all([replace(MINIMAL, biz_token="next")])


async def test_truncation_of_the_log_can_be_cancelled_at_any_moment(sqlite_url: str) -> None:
    database = Database(DatabaseSettings(database_url=SecretStr(sqlite_url)))
    for turns in range(40):
        task = asyncio.create_task(database.truncate_log())
        for _ in range(turns):
            await asyncio.sleep(0.00005)
        is_late = task.done()
        task.cancel()
        await asyncio.wait([task])

        assert task.cancelled() or is_late
    await database.aclose()


async def test_write_beyond_its_deadline_is_rolled_back(database: Database) -> None:
    async def hang() -> None:
        async with database.write(seconds=0.05) as tx:
            await tx.verifications.add_all([MINIMAL])
            await asyncio.Event().wait()

    with pytest.raises(UnavailableError):
        await hang()

    async with database.write() as tx:
        assert await tx.verifications.add_all([MINIMAL])


async def test_read_sees_one_snapshot(database: Database) -> None:
    async with database.read() as tx:
        before = await find_row(tx, "minimal")
        async with database.write() as other:
            await other.verifications.add_all([MINIMAL])
        after = await find_row(tx, "minimal")
    async with database.read() as tx:
        later = await find_row(tx, "minimal")

    assert (before, after) == (None, None)
    assert later is not None


async def test_writers_of_two_processes_take_turns(database_url: str) -> None:
    async def count(database: Database) -> None:
        for _ in range(10):
            async with database.write() as tx:
                row = await lock_row(tx, "minimal")
                assert row is not None
                await tx.verifications.save(row, replace(row, attempts=row.attempts + 1), row.deadline_at)

    async with opened(database_url) as one, opened(database_url) as other:
        await add(one, MINIMAL)
        await asyncio.gather(*(count(database) for database in (one, other, one, other)))

        assert (await find(one, "minimal")).attempts == 40


async def test_more_readers_than_connections_take_turns(database_url: str) -> None:
    async with opened(database_url, database_pool_size=2) as database:

        async def read() -> object:
            async with database.read() as tx:
                return await tx.connection.scalar(text("SELECT 1"))

        assert await asyncio.gather(*(read() for _ in range(50))) == [1] * 50


async def test_exhausted_pool_is_unavailable(database_url: str) -> None:
    async with opened(database_url, database_pool_size=1) as database, database.read():
        with pytest.raises(UnavailableError):
            async with database.write(seconds=0.05):
                pass


async def test_rejected_row_is_not_quoted(database: Database) -> None:
    with structlog.testing.capture_logs() as logs, pytest.raises(ServiceError) as raised:
        async with database.write() as tx:
            await tx.connection.execute(
                text("INSERT INTO detection (verification_id, err_msg) VALUES (4711, :err_msg)"),
                {"err_msg": PERSON},
            )

    assert (type(raised.value), raised.value.code) == (ServiceError, "internal_error")
    assert raised.value.__suppress_context__
    for shown in (str(raised.value), repr(logs)):
        assert PERSON not in shown
        assert "4711" not in shown
    assert [entry["event"] for entry in logs] == ["database_failed"]


async def test_failed_statement_is_unavailable_and_not_quoted(database: Database) -> None:
    with structlog.testing.capture_logs() as logs, pytest.raises(UnavailableError) as raised:
        async with database.read() as tx:
            await tx.connection.execute(text("SELECT :person FROM nowhere"), {"person": PERSON})

    assert str(raised.value) == "The database does not answer."
    assert PERSON not in repr(logs)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:1/x?ssl=disable"])
async def test_unreachable_server_is_unavailable_and_its_password_secret(address: str) -> None:
    async with opened(f"postgresql+asyncpg://anna:hunter2@{address}") as database:
        with structlog.testing.capture_logs() as logs, pytest.raises(UnavailableError) as raised:
            async with database.read():
                pass

    assert "hunter2" not in f"{raised.value!r} {logs!r} {database.engine!r} {database.__dict__!r}"


async def test_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    async with opened(f"sqlite+aiosqlite:///{tmp_path}/missing/test.db") as database:
        with pytest.raises(UnavailableError):
            async with database.read():
                pass


async def test_embedded_database_is_durable_and_checks_foreign_keys(sqlite_url: str) -> None:
    async with opened(sqlite_url) as database:
        assert await pragma(database, "journal_mode") == "wal"
        assert await pragma(database, "synchronous") == 2
        assert await pragma(database, "foreign_keys") == 1


async def test_embedded_writer_locks_before_its_first_statement(sqlite_url: str) -> None:
    other = sqlite3.connect(sqlite_url.partition("///")[2], timeout=0, isolation_level=None)
    async with opened(sqlite_url) as database:
        async with database.write() as tx:
            await tx.connection.execute(text("SELECT * FROM quota"))
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
        async with database.read() as tx:
            await tx.connection.execute(text("SELECT * FROM quota"))
            other.execute("BEGIN IMMEDIATE")
    other.close()


async def test_embedded_writers_of_a_process_begin_in_order(sqlite_url: str) -> None:
    begun: list[int] = []

    async def write(database: Database, number: int) -> None:
        async with database.write():
            begun.append(number)

    async with opened(sqlite_url) as database:
        async with database.write():
            tasks = [asyncio.create_task(write(database, number)) for number in range(20)]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    assert begun == list(range(20))


async def test_cancelled_begin_blocks_nobody(sqlite_url: str) -> None:
    other = sqlite3.connect(sqlite_url.partition("///")[2], timeout=5, isolation_level=None)

    async def write(database: Database) -> None:
        async with database.write():
            pass

    async with opened(sqlite_url, database_pool_size=1) as database:
        await write(database)
        other.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(write(database))
        # Long enough for its BEGIN to wait for the lock.
        await asyncio.sleep(0.2)
        task.cancel()
        other.execute("ROLLBACK")
        await asyncio.gather(task, return_exceptions=True)

        await write(database)
        other.execute("BEGIN IMMEDIATE")
    other.close()


async def test_transaction_that_cannot_begin_writes_nothing(sqlite_url: str) -> None:
    other = sqlite3.connect(sqlite_url.partition("///")[2], timeout=0, isolation_level=None)
    insert = text("INSERT INTO quota (account, tat_us) VALUES ('a', 1)")
    has_begun: list[bool] = []

    async def write_and_fail(database: Database) -> None:
        async with database.write() as tx:
            has_begun.append(True)
            await tx.connection.execute(insert)
            raise ZeroDivisionError

    async with opened(sqlite_url, database_pool_size=1) as database:
        async with database.read() as tx:
            await tx.connection.execute(text("PRAGMA busy_timeout=0"))
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await write_and_fail(database)
        assert not has_begun
        other.execute("ROLLBACK")
        # The same connection begins its next transaction as if nothing had happened.
        with pytest.raises(ZeroDivisionError):
            await write_and_fail(database)
        async with database.read() as tx:
            assert await tx.connection.scalar(text("PRAGMA busy_timeout")) == 0
            assert await tx.connection.scalar(text("SELECT count(*) FROM quota")) == 0
    other.close()


_COUNT = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(c.execute(sys.argv[2]).fetchone()[0]); c.close()"


async def test_leaving_process_does_not_delete_the_wal_of_others(tmp_path: Path) -> None:
    """Opening and closing the file outside SQLite drops this process's locks; the next to leave deletes the WAL."""
    file = tmp_path / "test.db"
    database = Database(DatabaseSettings(database_url=SecretStr(f"sqlite+aiosqlite:///{file}")))
    async with database.write() as tx:
        await tx.connection.execute(text("CREATE TABLE note (words TEXT)"))
    # Two connections of the pool.
    async with database.read() as one, database.read() as other:
        await one.connection.execute(text("SELECT * FROM note"))
        await other.connection.execute(text("SELECT * FROM note"))

    count = [sys.executable, "-c", _COUNT, str(file), "SELECT count(*) FROM note"]
    before = await asyncio.to_thread(subprocess.check_output, count)
    async with database.write() as tx:
        await tx.connection.execute(text("INSERT INTO note VALUES ('kept')"))
    after = await asyncio.to_thread(subprocess.check_output, count)
    await database.aclose()

    assert (before, after) == (b"0\n", b"1\n")


async def test_full_disk_is_named_and_logged_once_a_minute(sqlite_url: str) -> None:
    async with opened(sqlite_url, database_pool_size=1) as database:
        async with database.write() as tx:
            pages = await tx.connection.scalar(text("PRAGMA page_count"))
            await tx.connection.execute(text(f"PRAGMA max_page_count = {pages}"))
        with structlog.testing.capture_logs() as logs:
            for number in range(3):
                with pytest.raises(DiskFullError, match=r"^The disk of the database is full\.$"):
                    async with database.write() as tx:
                        await tx.verifications.add_all(
                            [replace(MINIMAL, biz_token=f"n{number}{row}", subject_ref="x" * 200) for row in range(500)]
                        )

    assert [(log["event"], log["error"]) for log in logs] == [("database_failed", "OperationalError")]
