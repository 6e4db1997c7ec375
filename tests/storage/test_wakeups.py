"""Wake-ups reach every subscriber in this process and in others, and work again after an interruption."""

import asyncio
from collections.abc import AsyncIterator, Collection

import asyncpg
import pytest
import structlog
from sqlalchemy import text

from app.storage.database import Database
from app.storage.postgres import DRIVER_ERRORS
from app.storage.wakeups import Wakeups, open_wakeups
from tests.support.databases import opened

SECONDS = 20


async def pids(database: Database) -> list[int]:
    """Returns the process ids of the listeners on this database, as the server sees them."""
    async with database.read() as tx:
        # The last statement of a session that listens, or of one that has sent something since.
        statement = (
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            " AND (query LIKE 'LISTEN %' OR query LIKE 'SELECT pg_notify(%')"
        )
        return list(await tx.connection.scalars(text(statement)))


async def listening(database: Database, count: int, *, without: Collection[int] = ()) -> None:
    for _ in range(1000):
        if len(set(await pids(database)) - set(without)) == count:
            return
        await asyncio.sleep(0.02)
    pytest.fail("There are not as many listeners as expected.")


async def heard(sender: Wakeups, receiver: Wakeups, topic: str) -> bool:
    with receiver.subscribed(topic) as event:
        sender.send(topic)
        async with asyncio.timeout(SECONDS):
            return await event.wait()


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[Database]:
    async with opened(postgres_url) as database:
        yield database


@pytest.fixture
async def two(postgres: Database) -> AsyncIterator[tuple[Wakeups, Wakeups]]:
    pair = open_wakeups(postgres), open_wakeups(postgres)
    await listening(postgres, 2)
    yield pair
    for wakeups in pair:
        await wakeups.aclose()


async def test_wakeup_reaches_every_subscriber_of_its_topic_alone(database: Database) -> None:
    wakeups = open_wakeups(database)
    with wakeups.subscribed("7") as one, wakeups.subscribed("7") as another, wakeups.subscribed("8") as stranger:
        wakeups.send("7")

        assert (one.is_set(), another.is_set(), stranger.is_set()) == (True, True, False)
    await wakeups.aclose()


async def test_earlier_wakeup_does_not_reach_a_new_subscriber(database: Database) -> None:
    wakeups = open_wakeups(database)
    wakeups.send("7")
    with wakeups.subscribed("7") as event:
        assert not event.is_set()
    await wakeups.aclose()


async def test_subscriptions_leave_nothing_behind() -> None:
    wakeups = Wakeups()
    for number in range(10):
        with wakeups.subscribed(str(number)):
            pass

    assert vars(wakeups) == vars(Wakeups())


async def test_wakeups_reach_the_other_process_both_ways(two: tuple[Wakeups, Wakeups]) -> None:
    one, other = two

    assert await heard(one, other, "7")
    assert await heard(other, one, "due")


async def test_thousand_wakeups_at_once_all_arrive(two: tuple[Wakeups, Wakeups]) -> None:
    one, other = two
    # As long as an id can be.
    topics = [str(10**18 + number) for number in range(1000)]

    async def hear(topic: str) -> bool:
        with other.subscribed(topic) as event:
            ready.release()
            return await event.wait()

    ready = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(hear(topic)) for topic in topics]
    for _ in topics:
        await ready.acquire()
    for topic in topics:
        one.send(topic)

    async with asyncio.timeout(SECONDS):
        assert await asyncio.gather(*tasks) == [True] * 1000


async def test_wakeups_work_again_after_the_server_ends_connections(
    two: tuple[Wakeups, Wakeups], postgres: Database
) -> None:
    one, other = two
    ended = await pids(postgres)
    async with postgres.write() as tx:
        for pid in ended:
            await tx.connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    one.send("while nobody listens")

    await listening(postgres, 2, without=ended)

    assert await heard(one, other, "7")


def test_every_error_of_the_driver_is_known() -> None:
    found = [
        each for each in vars(asyncpg.exceptions).values() if isinstance(each, type) and issubclass(each, Exception)
    ]

    assert len(found) > 200
    assert [each for each in found if not issubclass(each, (*DRIVER_ERRORS, Warning))] == []


@pytest.mark.parametrize(
    "error",
    [asyncpg.InternalClientError("another operation is in progress"), asyncpg.InterfaceError("closed"), OSError()],
)
async def test_wakeups_work_again_after_any_error_of_the_driver(
    two: tuple[Wakeups, Wakeups], postgres: Database, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    known, execute = await pids(postgres), asyncpg.Connection.execute

    async def fail(connection: asyncpg.Connection, query: str, *arguments: object, **options: object) -> str:
        if query.startswith("SELECT pg_notify"):
            raise error
        return str(await execute(connection, query, *arguments, **options))

    with monkeypatch.context() as patch:
        patch.setattr(asyncpg.Connection, "execute", fail)
        one.send("while the connection fails")
        await listening(postgres, 1, without=known)

    assert await heard(one, other, "7")


async def test_options_of_the_database_url_apply_to_wakeups(postgres_url: str) -> None:
    url = f"{postgres_url}&ssl=disable&prepared_statement_cache_size=0"
    async with opened(url) as database:
        wakeups = open_wakeups(database)

        await listening(database, 1)

        await wakeups.aclose()


async def test_unreachable_server_does_not_stop_wakeups_within_a_process() -> None:
    url = "postgresql+asyncpg://anna:hunter2@127.0.0.1:1/db"
    async with opened(url) as database:
        with structlog.testing.capture_logs() as logs:
            wakeups = open_wakeups(database)

            assert await heard(wakeups, wakeups, "7")
            for _ in range(1000):
                if logs:
                    break
                await asyncio.sleep(0.01)
            await wakeups.aclose()

    cause = "Postgres at 127.0.0.1:1 refuses the connection. Start it, or correct the host and port of DATABASE_URL."
    assert logs == [
        {"event": "signals_interrupted", "error": "ConnectionRefusedError", "cause": cause, "log_level": "warning"}
    ]
