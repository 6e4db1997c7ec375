"""Connections to Postgres that are lost, fall silent or lead to a server without writes."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from app.errors import NotFoundError, UnavailableError
from app.storage.database import Database
from tests.support.databases import opened
from tests.support.relay import Relay, relaying
from tests.support.rows import MINIMAL, lock_row


async def test_lost_connection_is_replaced(postgres_url: str) -> None:
    async with opened(postgres_url, database_pool_size=1) as database, opened(postgres_url) as other:
        async with database.read() as tx:
            pid = await tx.connection.scalar(text("SELECT pg_backend_pid()"))
        async with other.write() as tx:
            await tx.connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})

        async with database.read() as tx:
            assert await tx.connection.scalar(text("SELECT pg_backend_pid()")) != pid


async def test_connection_lost_within_a_transaction_is_unavailable(postgres_url: str) -> None:
    async with opened(postgres_url) as database, opened(postgres_url) as other:

        async def lose() -> None:
            async with database.write() as tx, other.write() as killer:
                await tx.verifications.add_all([MINIMAL])
                pid = await tx.connection.scalar(text("SELECT pg_backend_pid()"))
                await killer.connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})

        with pytest.raises(UnavailableError):
            await lose()

        async with database.write() as tx:
            assert await tx.verifications.add_all([MINIMAL])


@pytest.fixture
async def relay(postgres_url: str) -> AsyncIterator[Relay]:
    """Yields a relay to the Postgres server, which listens on a socket in the file system."""
    query = make_url(postgres_url).query
    path = f"{query['host']}/.s.PGSQL.{query['port']}"
    async with relaying(lambda: asyncio.open_unix_connection(path)) as started:
        yield started


@pytest.fixture
async def relayed(relay: Relay, postgres_url: str) -> AsyncIterator[Database]:
    """Yields the database as it is reached through the relay."""
    url = make_url(postgres_url).set(host="127.0.0.1", port=relay.port, query={})
    async with opened(url.render_as_string(hide_password=False)) as database:
        yield database


async def use_at_once(database: Database, count: int) -> None:
    """Opens so many connections, which the pool keeps."""
    gate = asyncio.Barrier(count)

    async def use() -> None:
        async with database.read() as tx:
            await tx.connection.scalar(text("SELECT 1"))
            await gate.wait()

    await asyncio.gather(*(use() for _ in range(count)))


async def test_silently_dropped_connections_are_replaced_all_at_once(relay: Relay, relayed: Database) -> None:
    await use_at_once(relayed, 8)
    relay.freeze()

    async with relayed.write() as tx:
        assert await tx.verifications.add_all([MINIMAL])
    assert relay.accepted == 9
    await use_at_once(relayed, 8)

    assert relay.accepted == 16


async def make_read_only(database: Database, count: int) -> None:
    """Makes so many open connections read-only, as if they led to the former primary after a switchover."""
    gate = asyncio.Barrier(count)

    async def demote() -> None:
        async with database.write() as tx:
            await gate.wait()
            await tx.connection.execute(text("SET default_transaction_read_only = on"))

    await asyncio.gather(*(demote() for _ in range(count)))


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_write_after_a_switchover_uses_a_new_connection(database: Database) -> None:
    await make_read_only(database, 5)

    async with database.write() as tx:
        assert await tx.verifications.add_all([MINIMAL])
    async with database.write() as tx:
        assert await lock_row(tx, "minimal")


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_switchover_within_a_transaction_costs_only_that_one(database: Database) -> None:
    async def write_in_vain() -> None:
        async with database.write() as tx:
            await tx.connection.execute(text("SET TRANSACTION READ ONLY"))
            await tx.verifications.add_all([MINIMAL])

    with pytest.raises(UnavailableError):
        await write_in_vain()

    async with database.write() as tx:
        assert await tx.verifications.add_all([MINIMAL])


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_server_that_accepts_no_writes_is_unavailable(database: Database, database_url: str) -> None:
    name = make_url(database_url).database
    async with database.write() as tx:
        await tx.connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    async with opened(database_url) as demoted:
        with pytest.raises(UnavailableError, match=r"^The database accepts no writes\.$"):
            async with demoted.write():
                pass
        async with demoted.read() as tx:
            assert await tx.connection.scalar(text("SELECT 1")) == 1
    async with database.write() as tx:
        await tx.connection.execute(text(f"ALTER DATABASE {name} RESET default_transaction_read_only"))


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_connection_that_answered_while_the_loop_was_blocked_is_kept(database: Database) -> None:
    async def pid() -> object:
        async with database.read() as tx:
            return await tx.connection.scalar(text("SELECT pg_backend_pid()"))

    def block(times: int) -> None:
        # Longer than the deadline of a ping.
        time.sleep(1.6)
        if times:
            asyncio.get_running_loop().call_soon(block, times - 1)

    before = await pid()
    asyncio.get_running_loop().call_soon(block, 3)

    assert await pid() == before


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_session_asks_the_server_for_tcp_keepalive(database: Database) -> None:
    statement = text("SELECT name, source FROM pg_settings WHERE name LIKE 'tcp_keepalives%' ORDER BY name")
    with suppress(NotFoundError):
        async with database.write():
            raise NotFoundError("rolls back")

    async with database.read() as tx:
        found = [tuple(row) for row in await tx.connection.execute(statement)]

    assert found == [(f"tcp_keepalives_{name}", "client") for name in ("count", "idle", "interval")]
