"""The migrations bring any database to the schema of this version, and every other schema is rejected."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from app.domain.detection import Outcome
from app.domain.listing import VerificationFilter
from app.domain.verification import LONG_AGO
from app.errors import ConfigurationError
from app.storage import schema
from app.storage.database import Database
from tests.support.databases import fresh_database, opened, wait_for_blocked_sessions
from tests.support.rows import MINIMAL


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"


@pytest.fixture
async def empty_postgres_url(postgres_server: str) -> AsyncIterator[str]:
    async with fresh_database(postgres_server) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url


_OLD_ROW = text(
    """
    INSERT INTO verification (
        id, client, biz_token, rule_id, state, outcome, provisional, deadline_at, claim, leased, woken, attempts,
        failures, looks, retain_until, retain_media_until
    ) VALUES (
        :number, 'a', :token, '1', 'pending', :outcome, false, '2026-01-01 00:00:00', 0, false, false, 0, 0, 0,
        '2026-01-01 00:00:00', '2026-01-01 00:00:00'
    )
    """
)


def modes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


async def test_migrations_match_the_tables(database: Database) -> None:
    await schema.check(database)

    await schema.require_current(database)


async def test_empty_database_is_rejected_until_it_is_migrated(empty_url: str) -> None:
    async with opened(empty_url) as database:
        with pytest.raises(ConfigurationError, match="faceid-results migrate"):
            await schema.require_current(database)
        assert not await schema.is_current(database)

        await schema.migrate(database)

        assert await schema.is_current(database)
        async with database.read() as tx:
            tables = await tx.connection.run_sync(lambda connection: inspect(connection).get_table_names())
    assert set(tables) == {*schema.metadata.tables, "alembic_version"}


async def test_migration_0008_keeps_outcomes_and_results(empty_url: str) -> None:
    async with opened(empty_url) as database:
        await schema.migrate(database, to="0007")
        async with database.write() as tx:
            for number, outcome in enumerate([None, "failed"], 1):
                await tx.connection.execute(_OLD_ROW, {"number": number, "token": str(number), "outcome": outcome})
                await tx.connection.execute(
                    text("INSERT INTO detection (verification_id) VALUES (:number)"), {"number": number}
                )

        await schema.migrate(database)

        await schema.check(database)
        async with database.read() as tx:
            rows = await tx.verifications.search(VerificationFilter(), limit=9, after=None)
            texts = await tx.results.texts([1, 2])
    assert [row.outcome for row in rows] == [Outcome.FAILED, None]
    assert set(texts) == {1, 2}


_RECEIVED = "2026-01-02 03:04:05.000000"


async def test_migration_0012_fills_the_time_of_the_last_update(empty_url: str) -> None:
    async with opened(empty_url) as database:
        await schema.migrate(database, to="0011")
        async with database.write() as tx:
            for number in range(1, 4):
                await tx.connection.execute(_OLD_ROW, {"number": number, "token": str(number), "outcome": ""})
            await tx.connection.execute(text(f"UPDATE verification SET received_at = '{_RECEIVED}' WHERE id = 1"))
            await tx.connection.execute(text(f"UPDATE verification SET registered_at = '{_RECEIVED}' WHERE id = 2"))

        await schema.migrate(database)

        await schema.check(database)
        async with database.read() as tx:
            rows = {row.id: row.updated_at for row in await tx.verifications.find_all(["1", "2", "3"])}
    known = datetime.fromisoformat(_RECEIVED).replace(tzinfo=UTC)
    assert (rows[1], rows[2]) == (known, known)
    assert rows[3] - LONG_AGO <= timedelta(seconds=1)


async def test_migration_0016_destroys_the_digests_of_revoked_keys(empty_url: str) -> None:
    columns = "id, name, client, scopes, sealed_digest, created_at, expires_at, revoked_at"
    async with opened(empty_url) as database:
        await schema.migrate(database, to="0013")
        async with database.write() as tx:
            for key_id, revoked_at in (("living", "NULL"), ("revoked", "'2026-01-02 00:00:00.000000'")):
                await tx.connection.execute(
                    text(
                        f"INSERT INTO api_key ({columns}) VALUES ('{key_id}', '', '', '', :digest,"
                        f" '2026-01-01 00:00:00.000000', '2026-02-01 00:00:00.000000', {revoked_at})"
                    ),
                    {"digest": b"digest"},
                )

        await schema.migrate(database)

        await schema.check(database)
        async with database.read() as tx:
            assert {key.id: key.sealed_digest for key in await tx.api_keys.list()} == {
                "living": b"digest",
                "revoked": b"",
            }


async def test_migration_0019_keeps_every_row_and_all_that_refers_to_it(empty_url: str) -> None:
    children = {
        "detection": "(verification_id) VALUES ({0})",
        "liveness_attempt": "(verification_id, position) VALUES ({0}, 0)",
        "media": "(verification_id, kind, object_key, content_type, size_bytes, sha256, sealed_key, stored_at)"
        " VALUES ({0}, 'best_frame', '{0}', '', 0, '', 'key', '2026-01-01 00:00:00')",
        "upstream_call": "(id, verification_id, called_at, action, info_type, duration_ms, bytes_received)"
        " VALUES ({0}, {0}, '2026-01-01 00:00:00', '', '', 0, 0)",
    }
    async with opened(empty_url) as database:
        await schema.migrate(database, to="0016")
        async with database.write() as tx:
            for number in (1, 2, 9):
                await tx.connection.execute(_OLD_ROW, {"number": number, "token": str(number), "outcome": ""})
                for table, values in children.items():
                    await tx.connection.exec_driver_sql(f"INSERT INTO {table} {values.format(number)}")
            await tx.connection.exec_driver_sql("UPDATE verification SET updated_at = '2026-01-01 00:00:00'")
            if not database.is_embedded:
                await tx.connection.exec_driver_sql("SELECT setval('verification_id_seq', 9)")
        before = await contents(database, "verification", *children)

        await schema.migrate(database)

        await schema.check(database)
        after = await contents(database, "verification", *children)
        # Later migrations add columns.
        assert {
            table: [{name: row[name] for name in before[table][0]} for row in rows] for table, rows in after.items()
        } == before
        async with database.write() as tx:
            added = await tx.verifications.add_all(
                [replace(MINIMAL, biz_token="9", client=client) for client in ("a", "b")]
            )
            with pytest.raises(IntegrityError):
                await tx.connection.exec_driver_sql("INSERT INTO detection (verification_id) VALUES (99)")
    assert {owner: row.id > 9 for owner, row in added.items()} == {("b", "9"): True}


async def contents(database: Database, *tables: str) -> dict[str, list[dict[str, object]]]:
    """Returns all rows of tables."""
    async with database.read() as tx:
        return {
            table: [dict(row) for row in (await tx.connection.execute(text(f"SELECT * FROM {table}"))).mappings()]
            for table in tables
        }


async def test_migration_0025_keeps_the_audit_and_reserves_linked_ids(empty_url: str) -> None:
    values = "'2026-01-01 00:00:00.000000', 'key', 'a', 'erase', 1, 'why', 'request', 'who', 'subject', 'text', 'done'"
    names = "at, key_id, client, action, verification_id, purpose, request_id, who, subject, fields, outcome"
    insert = f"INSERT INTO audit ({names}) VALUES ({values})"
    async with opened(empty_url) as database:
        await schema.migrate(database, to="0024")
        async with database.write() as tx:
            for _ in range(3):
                await tx.connection.exec_driver_sql(insert)
            await tx.connection.execute(text("INSERT INTO audit_link VALUES (1, 3, :hash)"), {"hash": b"hash"})
            await tx.connection.exec_driver_sql("DELETE FROM audit WHERE id = 3")
        before = await contents(database, "audit")

        await schema.migrate(database)

        await schema.check(database)
        assert await contents(database, "audit") == before
        async with database.write() as tx:
            await tx.connection.exec_driver_sql("DELETE FROM audit WHERE id = 2")
            await tx.connection.exec_driver_sql(insert)
        ids = [row["id"] for row in (await contents(database, "audit"))["audit"]]
    assert ids == [1, 4]


async def test_deleted_ids_are_not_assigned_again(empty_sqlite_url: str) -> None:
    async with opened(empty_sqlite_url) as database:
        await schema.migrate(database)
        async with database.write() as tx:
            ids = []
            for _ in range(2):
                added = await tx.verifications.add_all([MINIMAL])
                ids.append(added[MINIMAL.owner].id)
                await tx.connection.execute(text("DELETE FROM verification"))

    assert ids == [1, 2]


async def test_constraint_is_removed_without_holding_up_writers(empty_postgres_url: str) -> None:
    async with opened(empty_postgres_url) as database:
        await schema.migrate(database)
        async with database.write() as tx:
            constraint = "CONSTRAINT uq_verification_biz_token UNIQUE (biz_token)"
            await tx.connection.execute(text(f"ALTER TABLE verification ADD {constraint}"))
        async with database.read() as reader:
            await reader.connection.execute(text("SELECT 1 FROM verification"))
            migration = asyncio.create_task(schema.migrate(database))
            await wait_for_blocked_sessions(database, 1)
            async with database.write(seconds=5) as tx:
                await tx.connection.execute(_OLD_ROW, {"number": 1, "token": "1", "outcome": ""})
            assert not migration.done()
        await migration

        await schema.check(database)


async def test_indexes_are_built_while_others_read_and_write(empty_postgres_url: str) -> None:
    async with opened(empty_postgres_url) as database:
        await schema.migrate(database, to="0011")
        async with database.read() as reader:
            await reader.connection.execute(text("SELECT 1 FROM audit"))
            migration = asyncio.create_task(schema.migrate(database))
            # The build waits for the reader, and nobody waits for the build.
            await wait_for_blocked_sessions(database, 1)
            async with database.write(seconds=2) as tx:
                await tx.connection.execute(_OLD_ROW, {"number": 1, "token": "1", "outcome": ""})
            assert not migration.done()
        await migration

        await schema.check(database)


async def test_migrations_leave_the_indexes_of_tables_that_have_rows_to_the_build(empty_postgres_url: str) -> None:
    async with opened(empty_postgres_url) as database:
        await schema.migrate(database, to="0026")
        found = []
        # Unlike "head", "heads" ends before the build.
        for to in ("0026", "heads"):
            await schema.migrate(database, to=to)
            async with database.read() as tx:
                names = await tx.connection.execute(text("SELECT tablename, indexname FROM pg_indexes"))
                found.append({(table, index) for table, index in names})
    before, after = found
    tables = {table for table, _ in before}

    assert {(table, index) for table, index in after if table in tables} == before


async def test_interrupted_build_of_indexes_is_finished_by_the_next_migration(empty_postgres_url: str) -> None:
    async with opened(empty_postgres_url) as database:
        await schema.migrate(database)
        async with database.write() as tx:
            await tx.connection.execute(text("DROP INDEX ix_verification_state_outcome_updated_at_id"))
            await tx.connection.execute(
                text("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_verification_nonce'::regclass")
            )

        await schema.migrate(database)

        await schema.check(database)


async def test_processes_that_start_together_migrate_in_turn(empty_url: str) -> None:
    async def start() -> bool:
        async with opened(empty_url) as database:
            await schema.migrate(database)
            return await schema.is_current(database)

    assert await asyncio.gather(*(start() for _ in range(5))) == [True] * 5


async def test_newer_schema_is_rejected_and_not_changed(database: Database) -> None:
    async with database.write() as tx:
        await tx.connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(ConfigurationError, match="newer"):
        await schema.migrate(database)

    with pytest.raises(ConfigurationError, match="does not match this version"):
        await schema.require_current(database)


async def test_embedded_database_is_readable_by_its_owner_only(empty_sqlite_url: str, tmp_path: Path) -> None:
    async with opened(empty_sqlite_url) as database:
        await schema.migrate(database)

        assert await schema.is_current(database)
        assert modes(tmp_path) == {"empty.db": 0o600, "empty.db-wal": 0o600, "empty.db-shm": 0o600}


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_database_of_another_encoding_is_rejected(postgres_server: str, encoding: str) -> None:
    options = f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
    async with fresh_database(postgres_server, options) as url, opened(url) as database:
        for work in (schema.migrate, schema.require_current):
            with pytest.raises(ConfigurationError, match=f"^The encoding of the database is {encoding}, "):
                await work(database)
