"""Every list walks along the index that is meant for it, and nothing else is read or sorted, on both databases."""

import re
from dataclasses import fields, replace
from typing import Any

import pytest
from sqlalchemy import ClauseElement, Executable, Select, insert, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from app.domain.detection import Outcome
from app.domain.verification import Filter, Place, State
from app.storage.database import Database
from app.storage.lists import Index, page_of
from app.storage.tables import detection
from app.storage.verifications import VerificationStore
from tests.storage.test_verifications import MINIMAL, NOW

PERSON: Index = ("id_card_index", [b"one", b"two"])
PLACE = Place(1000, NOW)
EVERY = "state_outcome"
LISTS: list[tuple[Filter, Index | None, str | None]] = [
    (Filter(), None, None),
    (Filter(state=State.FAILED), None, f"{EVERY}_id"),
    (Filter(outcome=Outcome.FAILED), None, f"{EVERY}_id"),
    (Filter(state=State.RETRIEVED, outcome=Outcome.FAILED), None, f"{EVERY}_id"),
    (Filter(rule_id="7"), None, f"rule_id_{EVERY}_id"),
    (Filter(rule_id="7", state=State.FAILED), None, f"rule_id_{EVERY}_id"),
    (Filter(received_from=NOW), None, f"{EVERY}_received_at_id"),
    (Filter(received_to=NOW), None, f"{EVERY}_received_at_id"),
    (Filter(received_from=NOW, received_to=NOW, outcome=Outcome.FAILED), None, f"{EVERY}_received_at_id"),
    (Filter(client="a"), None, f"client_{EVERY}_id"),
    (Filter(client="a", state=State.PENDING), None, f"client_{EVERY}_id"),
    (Filter(client="a", outcome=Outcome.PASSED), None, f"client_{EVERY}_id"),
    (Filter(client="a", rule_id="7"), None, f"client_rule_id_{EVERY}_id"),
    (Filter(client="a", rule_id="7", outcome=Outcome.UNFINISHED), None, f"client_rule_id_{EVERY}_id"),
    (Filter(client="a", received_from=NOW), None, f"client_{EVERY}_received_at_id"),
    (Filter(client="a", received_from=NOW, state=State.RETRIEVED), None, f"client_{EVERY}_received_at_id"),
    (Filter(client="a", received_to=NOW, rule_id="7"), None, f"client_{EVERY}_received_at_id"),
    (Filter(subject_ref="x"), None, "subject_ref_id"),
    (Filter(client="a", subject_ref="x", state=State.FAILED, received_to=NOW), None, "subject_ref_id"),
    (Filter(client="a", rule_id="7", received_to=NOW), PERSON, "id_card_index_verification_id"),
]


def told(wanted: Filter, index: Index | None) -> str:
    names = [field.name for field in fields(wanted) if getattr(wanted, field.name) is not None]
    return " ".join([*names, *(["person"] if index else [])]) or "all"


class Explained(Executable, ClauseElement):
    """What a database would do for a statement."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(Explained)
def _explained(element: Explained, compiler: SQLCompiler, **options: object) -> str:
    how = "EXPLAIN QUERY PLAN" if compiler.dialect.name == "sqlite" else "EXPLAIN"
    return f"{how} {compiler.process(element.statement, **options)}"


@pytest.fixture
async def filled(database: Database) -> Database:
    """Rows that all look alike, so that Postgres believes that any index finds what is wanted."""
    row = replace(MINIMAL, client="a", state=State.RETRIEVED, outcome=Outcome.PASSED, received_at=NOW)
    async with database.write() as tx:
        added = await VerificationStore().add_all(tx, [replace(row, biz_token=f"{n:04}") for n in range(1000)])
        texts = [{"verification_id": one.id, "id_card_index": one.biz_token.encode()} for one in added.values()]
        await tx.execute(insert(detection), texts)
        await tx.execute(text("ANALYZE"))
    return database


async def plan_of(database: Database, wanted: Filter, index: Index | None, before: Place | None) -> list[str]:
    statement, parameters = page_of(wanted, limit=3, before=before, index=index)
    async with database.write() as tx:
        if not database.is_embedded:  # a thousand rows are read faster than any index; ten million are not
            await tx.execute(text("SET LOCAL enable_seqscan = off"))
        return [str(row[-1]) for row in await tx.execute(Explained(statement), parameters)]


@pytest.mark.parametrize("before", [None, PLACE], ids=["first", "deep"])
async def test_every_list_walks_along_its_index_and_sorts_no_more_than_a_page(
    filled: Database, before: Place | None
) -> None:
    for wanted, index, name in LISTS:
        plan = await plan_of(filled, wanted, index, before)

        used = {found for line in plan for found in re.findall(r"\b(?:ix|pk)_\w+", line)}
        meant = f"ix_{'detection' if index else 'verification'}_{name}"
        assert used - {"pk_verification"} == ({meant} if name else set()), told(wanted, index)
        assert not [line for line in plan if "Seq Scan" in line or line.startswith("SCAN verification")]
