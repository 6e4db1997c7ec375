"""Pages of every kind of list are complete, in order and without duplicates, compared with a filter in Python."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest
from sqlalchemy import insert

from app.domain.detection import Outcome
from app.domain.listing import Position, VerificationFilter
from app.domain.verification import STANDINGS, State, Verification
from app.storage.database import Database
from app.storage.tables import detection
from tests.storage.rows import add
from tests.support.rows import MINIMAL, NOW

LIMIT = 3
DICE = random.Random(7)
# Many rows have the same one.
INSTANTS = [None, NOW, NOW, NOW + timedelta(microseconds=1), NOW + timedelta(days=1)]
ROWS = [
    replace(
        MINIMAL,
        biz_token=f"token-{number}",
        client=DICE.choice(["a", "ab"]),
        rule_id=DICE.choice(["1", "2"]),
        subject_ref=DICE.choice([None, "x", "y"]),
        state=state,
        outcome=outcome,
        received_at=DICE.choice(INSTANTS),
    )
    for number in range(150)
    for state, outcome in [DICE.choice(STANDINGS)]
]
PERSON = "person_index", [b"none", b"one"]
RANGES = [
    VerificationFilter(),
    VerificationFilter(received_from=NOW),
    VerificationFilter(received_to=NOW + timedelta(microseconds=1)),
    VerificationFilter(received_from=NOW, received_to=NOW + timedelta(days=1)),
    VerificationFilter(received_from=NOW, received_to=NOW),
]


def expected(rows: Sequence[Verification], wanted: VerificationFilter) -> list[Verification]:
    equal = ("client", "state", "outcome", "rule_id", "subject_ref")
    met = [
        row
        for row in rows
        if all(getattr(wanted, name) in {None, getattr(row, name)} for name in equal)
        and (wanted.received_from is None or (row.received_at is not None and row.received_at >= wanted.received_from))
        and (wanted.received_to is None or (row.received_at is not None and row.received_at < wanted.received_to))
    ]
    return sorted(met, key=lambda row: ((wanted.is_by_receipt and row.received_at) or NOW, row.id), reverse=True)


async def paged(database: Database, wanted: VerificationFilter) -> list[Verification]:
    seen: list[Verification] = []
    before = None
    async with database.read() as tx:
        while page := await tx.verifications.search(wanted, limit=LIMIT, before=before):
            seen += page
            before = Position(page[-1].id, page[-1].received_at if wanted.is_by_receipt else None)
    return seen


async def test_pages_are_complete_in_order_and_without_duplicates(database: Database) -> None:
    rows = await add(database, *ROWS)

    choices = [None, "a"], [None, "2"], [None, "x"], [None, State.RETRIEVED], [None, Outcome.FAILED], RANGES
    for client, rule_id, subject_ref, state, outcome, received in product(*choices):
        wanted = replace(
            received, client=client, rule_id=rule_id, subject_ref=subject_ref, state=state, outcome=outcome
        )
        assert await paged(database, wanted) == expected(rows, wanted), wanted


@pytest.mark.parametrize("received", RANGES)
async def test_person_is_found_with_every_other_filter(database: Database, received: VerificationFilter) -> None:
    rows = await add(database, *ROWS)
    async with database.write() as tx:
        await tx.connection.execute(
            insert(detection), [{"verification_id": row.id, "person_index": b"one"} for row in rows if row.id % 2 == 0]
        )

    for client, outcome in product([None, "ab"], [None, Outcome.PASSED]):
        wanted = replace(received, client=client, outcome=outcome)
        async with database.read() as tx:
            found = await tx.verifications.search(wanted, limit=200, before=None, person=PERSON)
        met = [row for row in expected(rows, wanted) if row.id % 2 == 0]
        assert found == sorted(met, key=lambda row: row.id, reverse=True)


IMPOSSIBLE = sorted({*product(State, Outcome)} - {*STANDINGS})


@pytest.mark.parametrize("received", RANGES)
async def test_state_and_outcome_that_exclude_each_other_select_nothing(
    database: Database, received: VerificationFilter
) -> None:
    rows = await add(database, *ROWS)

    for state, outcome in IMPOSSIBLE:
        wanted = replace(received, state=state, outcome=outcome)
        assert await paged(database, wanted) == expected(rows, wanted) == []
