"""Rows of verifications come back as they went in, and a token has one row however many insert it at once."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import SecretStr

from app.domain.detection import Outcome
from app.domain.verification import Filter, Place, State, Verification
from app.storage.database import Database, DatabaseSettings
from app.storage.verifications import VerificationStore
from tests.support.rows import MINIMAL, NOW

STORE = VerificationStore()
FULL = Verification(
    client="bank",
    biz_token="full",
    rule_id="规则",
    subject_ref="loan-4711",
    purpose="开户",
    callback_extra=b"\x00sealed",
    sealed_key=b"\xffsealed",
    state=State.RETRIEVED,
    outcome=Outcome.FAILED,
    provisional=True,
    created_at=NOW - timedelta(days=1),
    registered_at=NOW + timedelta(microseconds=1),
    received_at=NOW,
    retrieved_at=NOW,
    deadline_at=datetime(9999, 12, 31, tzinfo=UTC),
    due_at=NOW,
    claim=7,
    leased=True,
    woken=True,
    attempts=3,
    failures=2,
    looks=1,
    last_request_id="0f96cf39",
    last_error_code="network.timeout",
)


async def add(database: Database, row: Verification) -> Verification | None:
    async with database.write() as tx:
        return await STORE.add(tx, row)


async def find(database: Database, token: str) -> Verification | None:
    async with database.read() as tx:
        return await STORE.find(tx, token)


async def search(database: Database, wanted: Filter, *, limit: int = 10, before: Place | None = None) -> list[str]:
    async with database.read() as tx:
        return [row.biz_token for row in await STORE.search(tx, wanted, limit=limit, before=before)]


@pytest.mark.parametrize("row", [MINIMAL, FULL], ids=["minimal", "full"])
async def test_every_field_is_read_as_it_was_written(database: Database, row: Verification) -> None:
    added = await add(database, row)

    assert added is not None
    assert added == replace(row, id=added.id)
    assert await find(database, row.biz_token) == added


async def test_instants_are_utc_whatever_zone_they_came_in(database: Database) -> None:
    there = NOW.astimezone(timezone(timedelta(hours=8)))

    await add(database, replace(MINIMAL, received_at=there))

    row = await find(database, "minimal")
    assert row is not None
    assert (row.received_at, row.deadline_at.tzinfo) == (NOW, UTC)


async def test_an_unknown_token_has_no_row(database: Database) -> None:
    assert await find(database, "unknown") is None
    async with database.write() as tx:
        assert await STORE.lock(tx, "unknown") is None


async def test_of_many_who_insert_a_token_at_once_one_succeeds_and_all_find_it(database: Database) -> None:
    added = await asyncio.gather(*(add(database, replace(MINIMAL, rule_id=str(number))) for number in range(20)))

    (winner,) = [row for row in added if row]
    assert await find(database, "minimal") == winner


async def test_two_who_add_the_same_in_opposite_orders_do_not_wait_for_each_other(database: Database) -> None:
    async def add_all(tokens: list[str]) -> set[str]:
        async with database.write() as tx:
            return set(await STORE.add_all(tx, [replace(MINIMAL, biz_token=token) for token in tokens]))

    for turn in range(5):
        tokens = [f"{turn}-{number}" for number in range(300)]
        one, other = await asyncio.gather(add_all(tokens), add_all(tokens[::-1]))

        assert one | other == set(tokens)
        assert not one & other


async def test_what_differs_is_saved_and_nothing_else(database: Database) -> None:
    before = await add(database, FULL)
    bystander = await add(database, MINIMAL)
    assert before is not None
    after = replace(before, state=State.PENDING, outcome=None, due_at=None, woken=False, attempts=4)

    async with database.write() as tx:
        await STORE.save(tx, before, after)
        await STORE.save(tx, after, after)

    assert await find(database, "full") == after
    assert await find(database, "minimal") == bystander


async def test_a_locked_row_waits_for_its_owner(database_url: str) -> None:
    one = Database(DatabaseSettings(database_url=SecretStr(database_url)))
    other = Database(DatabaseSettings(database_url=SecretStr(database_url)))
    await add(one, MINIMAL)

    async def count(database: Database) -> None:
        async with database.write() as tx:
            row = await STORE.lock(tx, "minimal")
            assert row is not None
            await STORE.save(tx, row, replace(row, attempts=row.attempts + 1))

    await asyncio.gather(*(count(database) for database in [one, other] * 10))

    row = await find(one, "minimal")
    assert row is not None
    assert row.attempts == 20
    await one.aclose()
    await other.aclose()


async def test_lists_are_newest_first_and_go_on_where_they_ended(database: Database) -> None:
    ids = {}
    for name in ("a", "b", "c", "d"):
        row = await add(database, replace(MINIMAL, biz_token=name))
        assert row is not None
        ids[name] = row.id

    assert await search(database, Filter(), limit=3) == ["d", "c", "b"]
    assert await search(database, Filter(), limit=3, before=Place(ids["b"])) == ["a"]


async def test_a_filter_shows_what_meets_all_of_it(database: Database) -> None:
    await add(database, MINIMAL)
    await add(database, FULL)
    later = NOW + timedelta(microseconds=1)

    for wanted, tokens in (
        (Filter(), ["full", "minimal"]),
        (Filter(client="bank"), ["full"]),
        (Filter(client="nobody"), []),
        (Filter(state=State.PENDING), ["minimal"]),
        (Filter(outcome=Outcome.FAILED), ["full"]),
        (Filter(rule_id="规则"), ["full"]),
        (Filter(subject_ref="loan-4711"), ["full"]),
        (Filter(received_from=NOW), ["full"]),
        (Filter(received_from=later), []),
        (Filter(received_to=NOW), []),
        (Filter(received_to=later), ["full"]),
        (Filter(client="bank", state=State.PENDING), []),
    ):
        assert await search(database, wanted) == tokens
