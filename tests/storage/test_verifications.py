"""Rows of verifications are read as they were written, and concurrent inserts of a token make one row."""

import asyncio
from dataclasses import replace
from datetime import UTC, timedelta, timezone
from typing import Any

import pytest

from app.domain.detection import Outcome
from app.domain.listing import Position, TimeField, TimeRange, VerificationFilter
from app.domain.verification import NEVER, Priority, State, Verification
from app.storage.database import Database
from tests.storage.rows import add, find
from tests.support.rows import MINIMAL, NOW, find_row, lock_row

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
    deadline_at=NEVER,
    due_at=NOW,
    claim=7,
    is_leased=True,
    wake_requested=True,
    attempts=3,
    failures=2,
    polls=1,
    last_request_id="0f96cf39",
    last_error_code="network.timeout",
)


async def search(
    database: Database, wanted: VerificationFilter, *, limit: int = 10, after: Position | None = None
) -> list[str]:
    async with database.read() as tx:
        return [row.biz_token for row in await tx.verifications.search(wanted, limit=limit, after=after)]


@pytest.mark.parametrize("row", [MINIMAL, FULL], ids=["minimal", "full"])
async def test_every_field_is_read_as_it_was_written(database: Database, row: Verification) -> None:
    (added,) = await add(database, row)

    assert added == replace(row, id=added.id)
    assert await find(database, row.biz_token) == added


async def test_instants_of_any_zone_are_read_in_utc(database: Database) -> None:
    there = NOW.astimezone(timezone(timedelta(hours=8)))

    await add(database, replace(MINIMAL, received_at=there))

    row = await find(database, "minimal")
    assert (row.received_at, row.deadline_at.tzinfo) == (NOW, UTC)


async def test_unknown_token_has_no_row(database: Database) -> None:
    async with database.write() as tx:
        assert await find_row(tx, "unknown") is None
        assert await lock_row(tx, "unknown") is None


async def test_one_of_many_concurrent_inserts_of_a_token_succeeds(database: Database) -> None:
    added = await asyncio.gather(*(add(database, replace(MINIMAL, rule_id=str(number))) for number in range(20)))

    (winner,) = [row for rows in added for row in rows]
    assert await find(database, "minimal") == winner


async def test_inserts_in_opposite_orders_do_not_deadlock(database: Database) -> None:
    async def add_all(tokens: list[str]) -> set[str]:
        async with database.write() as tx:
            added = await tx.verifications.add_all([replace(MINIMAL, biz_token=token) for token in tokens])
        return {biz_token for _, biz_token in added}

    for turn in range(5):
        tokens = [f"{turn}-{number}" for number in range(300)]
        one, other = await asyncio.gather(add_all(tokens), add_all(tokens[::-1]))

        assert one | other == set(tokens)
        assert not one & other


async def test_save_writes_the_changed_columns_of_one_row(database: Database) -> None:
    before, bystander = await add(database, FULL, MINIMAL)
    after = replace(before, state=State.PENDING, outcome=None, due_at=None, wake_requested=False, attempts=4)

    async with database.write() as tx:
        await tx.verifications.save(before, after, NOW)
        await tx.verifications.save(after, after, NOW)

    assert await find(database, "full") == replace(after, updated_at=NOW, event_count=1)
    assert await find(database, "minimal") == bystander


@pytest.mark.parametrize(
    ("changes", "is_visible"),
    [
        ({"claim": 1, "is_leased": True, "wake_requested": True, "account": "bank", "priority": Priority.POLL}, False),
        *(
            ({name: value}, True)
            for name, value in (("attempts", 1), ("due_at", NOW), ("erase_at", NOW), ("purpose", "x"))
        ),
    ],
)
async def test_row_is_updated_when_a_reader_sees_the_change(
    database: Database, changes: dict[str, Any], *, is_visible: bool
) -> None:
    (row,) = await add(database, replace(MINIMAL, updated_at=NOW))

    for hours in (1, -1):
        async with database.write() as tx:
            current = await find(database, "minimal")
            at = NOW + timedelta(hours=hours)
            await tx.verifications.save(current, replace(current, **changes if hours == 1 else {"attempts": 9}), at)

    # A clock that is set back does not move the row back.
    found = await find(database, "minimal")
    assert found.updated_at == (NOW + timedelta(hours=1) if is_visible else NOW)
    assert found.id == row.id


async def test_writers_of_a_locked_row_take_turns(database: Database, another: Database) -> None:
    await add(database, MINIMAL)

    async def count(mine: Database) -> None:
        async with mine.write() as tx:
            row = await lock_row(tx, "minimal")
            assert row is not None
            await tx.verifications.save(row, replace(row, attempts=row.attempts + 1), NOW)

    await asyncio.gather(*(count(mine) for mine in [database, another] * 10))

    assert (await find(database, "minimal")).attempts == 20


async def test_lists_are_newest_first_and_continue_after_a_position(database: Database) -> None:
    # One by one, because the rows of one call get their ids in no particular order.
    for name in ("a", "b", "c", "d"):
        await add(database, replace(MINIMAL, biz_token=name))
    second = await find(database, "b")

    assert await search(database, VerificationFilter(), limit=3) == ["d", "c", "b"]
    assert await search(database, VerificationFilter(), limit=3, after=Position(second.id)) == ["a"]


async def test_filter_selects_rows_that_match_all_of_it(database: Database) -> None:
    await add(database, MINIMAL)
    await add(database, FULL)
    later = NOW + timedelta(microseconds=1)

    for wanted, tokens in (
        (VerificationFilter(), ["full", "minimal"]),
        (VerificationFilter(client="bank"), ["full"]),
        (VerificationFilter(client="nobody"), []),
        (VerificationFilter(state=(State.PENDING,)), ["minimal"]),
        (VerificationFilter(outcome=(Outcome.FAILED,)), ["full"]),
        (VerificationFilter(rule_id="规则"), ["full"]),
        (VerificationFilter(subject_ref="loan-4711"), ["full"]),
        (VerificationFilter(within=TimeRange(field=TimeField.RECEIVED, start=NOW)), ["full"]),
        (VerificationFilter(within=TimeRange(field=TimeField.RECEIVED, start=later)), []),
        (VerificationFilter(within=TimeRange(field=TimeField.RECEIVED, end=NOW)), []),
        (VerificationFilter(within=TimeRange(field=TimeField.RECEIVED, end=later)), ["full"]),
        (VerificationFilter(client="bank", state=(State.PENDING,)), []),
    ):
        assert await search(database, wanted) == tokens
