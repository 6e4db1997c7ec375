"""Every list walks along the index that is meant for it, and nothing else is read or sorted, on both databases."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import ClauseElement, Executable, Select, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from app.domain.detection import Outcome
from app.domain.verification import Filter, Place, State, Verification
from app.storage.database import Database
from app.storage.lists import Index, page_of
from app.storage.verifications import VerificationStore
from tests.storage.test_verifications import MINIMAL, NOW

PERSON: Index = ("id_card_index", [b"one", b"two"])
RANGE = {"received_from": NOW, "received_to": NOW}
PLACE = Place(1000, NOW)
LISTS = [
    (Filter(), None, "the primary key"),
    (Filter(state=State.FAILED), None, "state_outcome_id"),
    (Filter(outcome=Outcome.FAILED), None, "state_outcome_id"),
    (Filter(state=State.RETRIEVED, outcome=Outcome.FAILED), None, "state_outcome_id"),
    (Filter(rule_id="7"), None, "rule_id_state_outcome_id"),
    (Filter(rule_id="7", state=State.FAILED), None, "rule_id_state_outcome_id"),
    (Filter(received_from=NOW), None, "state_outcome_received_at_id"),
    (Filter(received_to=NOW), None, "state_outcome_received_at_id"),
    (Filter(**RANGE, outcome=Outcome.FAILED), None, "state_outcome_received_at_id"),
    (Filter(client="a"), None, "client_state_outcome_id"),
    (Filter(client="a", state=State.PENDING), None, "client_state_outcome_id"),
    (Filter(client="a", outcome=Outcome.PASSED), None, "client_state_outcome_id"),
    (Filter(client="a", rule_id="7"), None, "client_rule_id_state_outcome_id"),
    (Filter(client="a", rule_id="7", outcome=Outcome.UNFINISHED), None, "client_rule_id_state_outcome_id"),
    (Filter(client="a", **RANGE), None, "client_state_outcome_received_at_id"),
    (Filter(client="a", **RANGE, state=State.RETRIEVED), None, "client_state_outcome_received_at_id"),
    (Filter(client="a", **RANGE, rule_id="7"), None, "client_state_outcome_received_at_id"),
    (Filter(subject_ref="x"), None, "subject_ref_id"),
    (Filter(client="a", subject_ref="x", state=State.FAILED, **RANGE), None, "subject_ref_id"),
    (Filter(client="a", rule_id="7", **RANGE), PERSON, "id_card_index_verification_id"),
]
TOLD = [f"{sorted(name for name in wanted.__slots__ if getattr(wanted, name))}" for wanted, _, _ in LISTS]


class Explained(Executable, ClauseElement):
    """What a database would do for a statement."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(Explained)
def _explained(element: Explained, compiler: SQLCompiler, **options: Any) -> str:
    how = "EXPLAIN QUERY PLAN" if compiler.dialect.name == "sqlite" else "EXPLAIN"
    return f"{how} {compiler.process(element.statement, **options)}"


@pytest.fixture
async def filled(database: Database) -> AsyncIterator[Database]:
    """A thousand rows that all look alike, so that Postgres believes that any index finds what is wanted."""
    row = replace(MINIMAL, client="a", state=State.RETRIEVED, outcome=Outcome.PASSED, received_at=NOW)
    async with database.write() as tx:
        for number in range(1000):
            await VerificationStore().add(tx, replace(row, biz_token=f"{number:04}"))
        await tx.execute(text("ANALYZE verification"))
    return database


async def plan(database: Database, wanted: Filter, index: Index | None, before: Place | None) -> list[str]:
    statement, parameters = page_of(wanted, limit=3, before=before, index=index)
    async with database.write() as tx:
        return [str(row[-1]) for row in await tx.execute(Explained(statement), parameters)]
