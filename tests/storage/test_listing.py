"""Pages of every kind of list are complete, in order and without duplicates, compared with a filter in Python."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from sqlalchemy import insert, update

from app.domain.detection import Outcome
from app.domain.listing import Position, TimeField, TimeRange, VerificationFilter
from app.domain.verification import NEVER, STANDINGS, State, Verification
from app.storage.database import Database
from app.storage.tables import detection
from tests.storage.rows import add
from tests.support.rows import MINIMAL, NOW

LIMIT = 7
DICE = random.Random(7)
# Many rows have the same one.
INSTANTS: list[Any] = [None, NOW, NOW, NOW + timedelta(microseconds=1), NOW + timedelta(days=1)]
ROWS = [
    replace(
        MINIMAL,
        biz_token=f"token-{number}",
        client=DICE.choice(["a", "ab"]),
        rule_id=DICE.choice(["1", "2"]),
        subject_ref=DICE.choice([None, "x", "y"]),
        state=state,
        outcome=outcome,
        registered_at=DICE.choice(INSTANTS),
        received_at=DICE.choice(INSTANTS),
        retrieved_at=DICE.choice(INSTANTS),
        updated_at=DICE.choice(INSTANTS[1:]),
    )
    for number in range(150)
    for state, outcome in [DICE.choice(STANDINGS)]
]
PERSON = "person_index", [b"none", b"one"]
NEXT_MICROSECOND, NEXT_DAY = NOW + timedelta(microseconds=1), NOW + timedelta(days=1)
LIMITS: list[dict[str, Any]] = [
    {"start": NOW},
    {"end": NEXT_MICROSECOND},
    {"start": NOW, "end": NEXT_DAY},
    {"start": NOW, "end": NOW},
]
RECEIVED = [None, *(TimeRange(field=TimeField.RECEIVED, **limits) for limits in LIMITS)]
RANGES = [*RECEIVED, *(TimeRange(field=field, **limits) for field in TimeField for limits in LIMITS[1:3])]


def is_wanted(row: Verification, wanted: VerificationFilter) -> bool:
    """Returns whether a list contains the row, by its definition."""
    within = wanted.within
    at = getattr(row, within.field) if within else None
    return (
        all(getattr(wanted, name) in {None, getattr(row, name)} for name in ("client", "rule_id", "subject_ref"))
        and (not wanted.state or row.state in wanted.state)
        and (not wanted.outcome or row.outcome in wanted.outcome)
        and (not wanted.err_code or err_code_of(row) in wanted.err_code)
        and (within is None or (at is not None and (within.start or at) <= at < (within.end or NEVER)))
    )


def err_code_of(row: Verification) -> int | None:
    """Returns the result code of a row: that of every second result, in turn 0, 2016 and 1001."""
    return [0, 2016, 1001][row.id % 3] if row.id % 2 else None


async def add_rows(database: Database) -> Sequence[Verification]:
    """Inserts the rows, and their result codes."""
    rows = await add(database, *ROWS)
    async with database.write() as tx:
        await tx.connection.execute(
            insert(detection), [{"verification_id": row.id, "err_code": err_code_of(row)} for row in rows if row.id % 2]
        )
    return rows


def expected(rows: Sequence[Verification], wanted: VerificationFilter) -> list[Verification]:
    field = wanted.order.field
    return sorted(
        (row for row in rows if is_wanted(row, wanted)),
        key=lambda row: ((field and getattr(row, field)) or NOW, row.id),
        reverse=not wanted.is_ascending,
    )


async def paged(database: Database, wanted: VerificationFilter) -> list[Verification]:
    seen: list[Verification] = []
    after, field = None, wanted.order.field
    while True:
        # A transaction has a deadline, and a busy machine may be slow.
        async with database.read() as tx:
            page = await tx.verifications.search(wanted, limit=LIMIT, after=after)
        if not page:
            return seen
        seen += page
        after = Position(page[-1].id, getattr(page[-1], field) if field else None)


# Every filter with every range, and some larger combinations.
COMBINATIONS = [
    VerificationFilter(
        client=client, rule_id=rule_id, subject_ref=subject, state=state, outcome=outcome, err_code=code, within=within
    )
    for client, rule_id, subject, state, outcome, code, within in product(
        [None, "a"],
        [None, "2"],
        [None, "x"],
        [(), (State.RETRIEVED,), (State.FAILED, State.EXPIRED, State.FAILED)],
        [(), (Outcome.FAILED, Outcome.PASSED)],
        [(), (2016, 0)],
        RANGES,
    )
    if sum(map(bool, (client, rule_id, subject, state, outcome, code))) <= 1 or DICE.random() < 0.08
]


@pytest.mark.parametrize("is_ascending", [False, True])
async def test_pages_are_complete_in_order_and_without_duplicates(database: Database, *, is_ascending: bool) -> None:
    rows = await add_rows(database)

    for combination in COMBINATIONS:
        wanted = replace(combination, is_ascending=is_ascending)
        assert await paged(database, wanted) == expected(rows, wanted), wanted


@pytest.mark.parametrize("within", RANGES[:6], ids=repr)
async def test_person_is_found_with_every_other_filter(database: Database, within: TimeRange | None) -> None:
    rows = await add_rows(database)
    async with database.write() as tx:
        await tx.connection.execute(update(detection).values(person_index=b"one"))

    for client, outcome, err_code, is_ascending in product(
        [None, "ab"], [(), (Outcome.PASSED,)], [(), (2016,)], [False, True]
    ):
        wanted = VerificationFilter(
            client=client, outcome=outcome, err_code=err_code, within=within, is_ascending=is_ascending
        )
        async with database.read() as tx:
            found = await tx.verifications.search(wanted, limit=200, after=None, person=PERSON)
        met = [row for row in rows if row.id % 2 and is_wanted(row, wanted)]
        assert found == sorted(met, key=lambda row: row.id, reverse=not is_ascending)


IMPOSSIBLE = sorted({*product(State, Outcome)} - {*STANDINGS})


@pytest.mark.parametrize("within", RANGES[:6], ids=repr)
async def test_state_and_outcome_that_exclude_each_other_select_nothing(
    database: Database, within: TimeRange | None
) -> None:
    await add_rows(database)

    for state, outcome in IMPOSSIBLE:
        for subject_ref in (None, "x"):
            wanted = VerificationFilter(state=(state,), outcome=(outcome,), within=within, subject_ref=subject_ref)
            assert await paged(database, wanted) == []
