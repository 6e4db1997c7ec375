"""Wake-ups reach whoever waits, in this process and in the others, and come back after a break."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import text

from app.storage.database import Database, DatabaseSettings
from app.storage.signals import Signals, open_signals

SECONDS = 20


async def pids(database: Database) -> list[int]:
    """The listeners on this database, as the server sees them."""
    async with database.read() as tx:
        statement = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %'"
        return list(await tx.scalars(text(statement)))


async def listening(database: Database, count: int, *, besides: list[int] | None = None) -> None:
    for _ in range(1000):
        if len(set(await pids(database)) - set(besides or [])) == count:
            return
        await asyncio.sleep(0.02)
    pytest.fail("They do not listen.")


async def heard(sender: Signals, receiver: Signals, topic: str) -> bool:
    with receiver.subscribed(topic) as event:
        sender.send(topic)
        async with asyncio.timeout(SECONDS):
            return await event.wait()


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[Database]:
    database = Database(DatabaseSettings(database_url=SecretStr(postgres_url)))
    yield database
    await database.aclose()


@pytest.fixture
async def two(postgres: Database) -> AsyncIterator[tuple[Signals, Signals]]:
    pair = open_signals(postgres), open_signals(postgres)
    await listening(postgres, 2)
    yield pair
    for signals in pair:
        await signals.aclose()


async def test_a_signal_wakes_everybody_who_waits_for_its_topic_and_nobody_else(database: Database) -> None:
    signals = open_signals(database)
    with signals.subscribed("7") as one, signals.subscribed("7") as another, signals.subscribed("8") as stranger:
        signals.send("7")

        assert (one.is_set(), another.is_set(), stranger.is_set()) == (True, True, False)
    await signals.aclose()


async def test_a_signal_of_the_past_wakes_nobody(database: Database) -> None:
    signals = open_signals(database)
    signals.send("7")
    with signals.subscribed("7") as event:
        assert not event.is_set()
    await signals.aclose()


async def test_nothing_is_kept_of_those_who_have_left() -> None:
    signals = Signals()
    for number in range(10):
        with signals.subscribed(str(number)):
            pass

    assert vars(signals) == vars(Signals())


async def test_signals_reach_the_other_process_both_ways(two: tuple[Signals, Signals]) -> None:
    one, other = two

    assert await heard(one, other, "7")
    assert await heard(other, one, "due")


async def test_a_thousand_signals_at_once_all_arrive(two: tuple[Signals, Signals]) -> None:
    one, other = two
    topics = [str(10**18 + number) for number in range(1000)]  # as long as an id can be

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


async def test_signals_come_back_when_the_server_has_ended_their_connections(
    two: tuple[Signals, Signals], postgres: Database
) -> None:
    one, other = two
    ended = await pids(postgres)
    async with postgres.write() as tx:
        for pid in ended:
            await tx.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    one.send("while nobody listens")

    await listening(postgres, 2, besides=ended)

    assert await heard(one, other, "7")


async def test_options_of_the_database_url_hold_for_signals_too(postgres_url: str) -> None:
    url = f"{postgres_url}&ssl=disable&prepared_statement_cache_size=0&command_timeout=9"
    database = Database(DatabaseSettings(database_url=SecretStr(url)))
    signals = open_signals(database)

    await listening(database, 1)

    await signals.aclose()
    await database.aclose()


async def test_an_unreachable_server_is_waited_for_and_the_own_process_still_hears() -> None:
    url = SecretStr("postgresql+asyncpg://anna:hunter2@127.0.0.1:1/db")
    database = Database(DatabaseSettings(database_url=url))
    with structlog.testing.capture_logs() as logs:
        signals = open_signals(database)

        assert await heard(signals, signals, "7")
        for _ in range(1000):
            if logs:
                break
            await asyncio.sleep(0.01)
        await signals.aclose()
        await database.aclose()

    assert logs == [{"event": "signals_interrupted", "error": "ConnectionRefusedError", "log_level": "warning"}]
