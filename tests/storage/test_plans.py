"""Every list walks along the index that is meant for it, and nothing else is read or sorted, on both databases."""

import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import ClauseElement, Executable, Select, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from app.domain.detection import Outcome
from app.domain.verification import Filter, Place, State
from app.storage.database import Database, DatabaseSettings
from app.storage.lists import Index, page_of
from app.storage.tables import columns_of
from app.storage.verifications import VerificationStore
from tests.support.databases import PostgresPool
from tests.support.rows import MINIMAL, NOW

PERSON: Index = ("id_card_index", [b"one", b"two"])
IN_RANGE = Filter(received_from=NOW, received_to=NOW)
OF_RULE = Filter(rule_id="7")
# What is asked for, and the index for it: without a client, and with one.
LISTS = [
    (Filter(state=State.FAILED), "state_outcome_id"),
    (Filter(outcome=Outcome.FAILED), "state_outcome_id"),
    (Filter(state=State.RETRIEVED, outcome=Outcome.FAILED), "state_outcome_id"),
    (OF_RULE, "rule_id_state_outcome_id"),
    (replace(OF_RULE, state=State.FAILED), "rule_id_state_outcome_id"),
    (replace(OF_RULE, outcome=Outcome.UNFINISHED), "rule_id_state_outcome_id"),
    (IN_RANGE, "state_outcome_received_at_id"),
    (Filter(received_from=NOW), "state_outcome_received_at_id"),
    (Filter(received_to=NOW), "state_outcome_received_at_id"),
    (replace(IN_RANGE, state=State.RETRIEVED, outcome=Outcome.FAILED), "state_outcome_received_at_id"),
]
CASES = [
    (Filter(), "primary key"),
    *LISTS,
    (Filter(client="a"), "client_state_outcome_id"),
    *((replace(wanted, client="a"), f"client_{index}") for wanted, index in LISTS),
    (replace(IN_RANGE, rule_id="7"), "state_outcome_received_at_id"),
    (replace(IN_RANGE, rule_id="7", client="a"), "client_rule_id_state_outcome_received_at_id"),
    (Filter(subject_ref="x"), "subject_ref_id"),
    (replace(IN_RANGE, client="a", subject_ref="x", rule_id="7", state=State.FAILED), "subject_ref_id"),
]


_TEXTS = "INSERT INTO detection (verification_id, id_card_index) SELECT id, 'one' FROM verification"


def told(value: Filter | str) -> str:
    if isinstance(value, str):
        return value
    return "-".join(name for name, set_to in columns_of(value).items() if set_to is not None) or "all"


class Explained(Executable, ClauseElement):
    """What a database would do for a statement."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(Explained)
def _explained(element: Explained, compiler: SQLCompiler, **options: object) -> str:
    how = "EXPLAIN QUERY PLAN" if compiler.dialect.name == "sqlite" else "EXPLAIN"
    return f"{how} {compiler.process(element.statement, **options)}"


@pytest.fixture(scope="module")
async def postgres_url(postgres_pool: PostgresPool) -> AsyncIterator[str]:
    async with postgres_pool.lend() as url:
        yield url


@pytest.fixture(scope="module", params=["sqlite", "sqlite without statistics", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bool]:
    """The URL of an empty database, and whether it is to know what it holds: SQLite does not until ANALYZE."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url"), True
    template, folder = request.getfixturevalue("sqlite_template"), tmp_path_factory.mktemp("plans")
    return f"sqlite+aiosqlite:///{shutil.copy(template, folder)}", request.param == "sqlite"


@pytest.fixture(scope="module")
async def filled(place: tuple[str, bool]) -> AsyncIterator[Database]:
    """Rows that all look alike, so Postgres expects of every index that it soon finds a row. The tests only read."""
    url, with_statistics = place
    database = Database(DatabaseSettings(database_url=SecretStr(url)))
    row = replace(
        MINIMAL,
        client="a",
        rule_id="7",
        subject_ref="x",
        state=State.RETRIEVED,
        outcome=Outcome.PASSED,
        received_at=NOW,
    )
    async with database.write() as tx:
        await VerificationStore().add_all(tx, [replace(row, biz_token=f"{number:04}") for number in range(1000)])
        await tx.execute(text(_TEXTS))
        if with_statistics:
            await tx.execute(text("ANALYZE"))
    yield database
    await database.aclose()


async def accesses(database: Database, wanted: Filter, person: Index | None = None) -> tuple[set[str], str]:
    """What is read how by a deep page, and the whole plan."""
    statement, parameters = page_of(wanted, limit=3, before=Place(500, NOW), index=person)
    async with database.read() as tx:
        whole = "\n".join([str(row[-1]) for row in await tx.execute(Explained(statement), parameters)])
    if database.is_embedded:
        found = re.findall(r"SEARCH \w+ USING (?:COVERING )?(?:INDEX \w+|INTEGER PRIMARY KEY)|SCAN (?!anon)\w+", whole)
    else:
        found = re.findall(r"(?:Index|Index Only) Scan (?:Backward )?using \w+|Seq Scan|Bitmap", whole)
    return {name.rpartition(" ")[2].replace("pk_verification", "KEY") for name in found}, whole


@pytest.mark.parametrize(("wanted", "index"), CASES, ids=told)
async def test_a_list_walks_along_one_index(filled: Database, wanted: Filter, index: str) -> None:
    read, whole = await accesses(filled, wanted)

    # The rows themselves are looked up by the primary key.
    assert read == {"KEY"} | ({f"ix_verification_{index}"} - {"ix_verification_primary key"}), whole


async def test_a_person_is_looked_for_by_the_digests_alone(filled: Database) -> None:
    wanted = replace(IN_RANGE, client="a", rule_id="7", state=State.RETRIEVED)

    read, whole = await accesses(filled, wanted, PERSON)

    assert read == {"KEY", "ix_detection_id_card_index_verification_id"}, whole


SINGLE = [Filter(), Filter(subject_ref="x"), Filter(state=State.RETRIEVED, outcome=Outcome.FAILED, client="a")]


@pytest.mark.parametrize("wanted", SINGLE, ids=told)
async def test_a_single_walk_is_not_sorted(filled: Database, wanted: Filter) -> None:
    _, whole = await accesses(filled, wanted)

    # What is behind the walk sorts the few rows of one page.
    walk = re.findall(
        r"MATERIALIZE anon_1(.*?)SCAN anon_1|->  Limit(.*?)->  [^>]*pk_verification on verification  ", whole, re.DOTALL
    )
    assert walk
    assert not re.search("Sort|TEMP B-TREE", str(walk)), whole
