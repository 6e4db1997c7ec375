"""Whatever a list is filtered by, its pages together are exactly the rows that meet all of it, in one order."""

from dataclasses import replace
from datetime import timedelta
from itertools import product
from random import Random
from typing import Any

from app.domain.detection import Outcome
from app.domain.verification import Filter, Place, State, Verification
from app.storage.database import Database
from app.storage.verifications import VerificationStore
from tests.storage.test_verifications import MINIMAL, NOW

STORE = VerificationStore()
INSTANTS = [None, *(NOW + timedelta(days=day) for day in range(4))]  # many rows share each of them
DICE = Random(7)


async def fill(database: Database, count: int) -> list[Verification]:
    rows = [
        replace(
            MINIMAL,
            biz_token=f"token-{number}",
            client=DICE.choice("ab"),
            rule_id=DICE.choice("12"),
            subject_ref=DICE.choice([None, "x", "y"]),
            state=DICE.choice(list(State)),
            outcome=DICE.choice([None, *Outcome]),
            received_at=DICE.choice(INSTANTS),
        )
        for number in range(count)
    ]
    async with database.write() as tx:
        return list((await STORE.add_all(tx, rows)).values())


def filters() -> list[Filter]:
    """Every pair of values of every pair of filters, and some of all of them."""
    choices: dict[str, list[Any]] = {
        "client": ["a"],
        "rule_id": ["1"],
        "subject_ref": ["x"],
        "state": [State.RETRIEVED, State.PENDING],
        "outcome": [Outcome.PASSED],
        "received_from": [INSTANTS[2]],
        "received_to": [INSTANTS[3]],
    }
    names = [
        dict(zip(choices, values, strict=True)) for values in product(*([None, *some] for some in choices.values()))
    ]
    return [Filter(**wanted) for wanted in DICE.sample(names, 60)] + [Filter(), Filter(received_from=INSTANTS[1])]


def meets(row: Verification, wanted: Filter) -> bool:
    names = ("client", "rule_id", "subject_ref", "state", "outcome")
    is_equal = all(getattr(wanted, name) in {None, getattr(row, name)} for name in names)
    at = row.received_at
    is_after = wanted.received_from is None or (at is not None and at >= wanted.received_from)
    is_before = wanted.received_to is None or (at is not None and at < wanted.received_to)
    return is_equal and is_after and is_before


async def pages(database: Database, wanted: Filter, limit: int) -> list[Verification]:
    seen: list[Verification] = []
    before: Place | None = None
    while True:
        async with database.read() as tx:
            page = await STORE.search(tx, wanted, limit=limit, before=before)
        seen += page
        if len(page) < limit:
            return seen
        before = Place(page[-1].id, page[-1].received_at if wanted.is_by_receipt else None)


async def test_pages_are_what_a_plain_filter_finds(database: Database) -> None:
    rows = await fill(database, 300)

    for wanted in filters():
        met = [row for row in rows if meets(row, wanted)]
        met.sort(key=lambda row: ((row.received_at or NOW) if wanted.is_by_receipt else NOW, row.id), reverse=True)

        assert await pages(database, wanted, DICE.randint(1, 40)) == met, wanted
