"""Every list scans its index, and both databases read and sort nothing else."""

import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from app.domain.detection import Outcome
from app.domain.listing import Position, TimeField, TimeRange, VerificationFilter
from app.domain.verification import State
from app.storage.database import Database, DatabaseSettings
from app.storage.listing import PersonIndex, page_statement
from app.storage.tables import columns_of
from tests.support.databases import PostgresPool
from tests.support.plans import plan_of
from tests.support.rows import MINIMAL, NOW

PERSON: PersonIndex = ("id_card_index", [b"one", b"two"])
IN_RANGE = VerificationFilter(within=TimeRange(field=TimeField.RECEIVED, start=NOW, end=NOW))
OF_RULE = VerificationFilter(rule_id="7")
RECEIVED = "state_outcome_received_at_id"
# A filter, and the index for it without a client; the index with a client begins with `client_`.
LISTS = [
    (VerificationFilter(state=(State.FAILED,)), "state_outcome_id"),
    (VerificationFilter(outcome=(Outcome.FAILED,)), "state_outcome_id"),
    (VerificationFilter(state=(State.RETRIEVED, State.FAILED), outcome=(Outcome.FAILED,)), "state_outcome_id"),
    (OF_RULE, "rule_id_state_outcome_id"),
    (replace(OF_RULE, state=(State.FAILED,)), "rule_id_state_outcome_id"),
    (replace(OF_RULE, outcome=(Outcome.UNFINISHED,)), "rule_id_state_outcome_id"),
    (IN_RANGE, RECEIVED),
    (VerificationFilter(within=TimeRange(field=TimeField.RECEIVED, start=NOW)), RECEIVED),
    (VerificationFilter(within=TimeRange(field=TimeField.RECEIVED, end=NOW)), RECEIVED),
    (replace(IN_RANGE, state=(State.RETRIEVED,), outcome=(Outcome.FAILED,)), RECEIVED),
    *(
        (
            VerificationFilter(within=TimeRange(field=field, start=NOW), outcome=outcome),
            f"state_outcome_{field}_id",
        )
        for field in (TimeField.REGISTERED, TimeField.RETRIEVED, TimeField.UPDATED)
        for outcome in ((), (Outcome.FAILED,))
    ),
]
UPDATED = VerificationFilter(within=TimeRange(field=TimeField.UPDATED, end=NOW))
CASES = [
    (VerificationFilter(), "primary key"),
    *LISTS,
    (VerificationFilter(client="a"), "client_state_outcome_id"),
    *((replace(wanted, client="a"), f"client_{index}") for wanted, index in LISTS),
    (replace(IN_RANGE, rule_id="7"), RECEIVED),
    (replace(IN_RANGE, rule_id="7", client="a"), f"client_rule_id_{RECEIVED}"),
    (replace(UPDATED, rule_id="7", client="a"), "client_state_outcome_updated_at_id"),
    (VerificationFilter(subject_ref="x"), "subject_ref_id"),
    (replace(IN_RANGE, client="a", subject_ref="x", rule_id="7", state=(State.FAILED,)), "subject_ref_id"),
]
OF_CODE = VerificationFilter(err_code=(0, 2016))


_TEXTS = "INSERT INTO detection (verification_id, id_card_index, err_code) SELECT id, 'one', 0 FROM verification"


def case_id(value: VerificationFilter | str) -> str:
    if isinstance(value, str):
        return value
    return "-".join(name for name, set_to in columns_of(value).items() if set_to) or "all"


@pytest.fixture(scope="module")
async def postgres_url(postgres_pool: PostgresPool) -> AsyncIterator[str]:
    async with postgres_pool.lend() as url:
        yield url


@pytest.fixture(scope="module", params=["sqlite", "sqlite without statistics", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bool]:
    """The URL of an empty database, and whether to collect statistics: SQLite has none until ANALYZE."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url"), True
    template, folder = request.getfixturevalue("sqlite_template"), tmp_path_factory.mktemp("plans")
    return f"sqlite+aiosqlite:///{shutil.copy(template, folder)}", request.param == "sqlite"


@pytest.fixture(scope="module")
async def filled(place: tuple[str, bool]) -> AsyncIterator[Database]:
    """A database of similar rows, so Postgres expects any index to find a row soon. The tests only read."""
    url, with_statistics = place
    database = Database(DatabaseSettings(database_url=SecretStr(url)))
    row = replace(
        MINIMAL,
        client="a",
        rule_id="7",
        subject_ref="x",
        state=State.RETRIEVED,
        outcome=Outcome.PASSED,
        registered_at=NOW,
        received_at=NOW,
        retrieved_at=NOW,
        updated_at=NOW,
    )
    async with database.write() as tx:
        await tx.verifications.add_all([replace(row, biz_token=f"{number:04}") for number in range(1000)])
        await tx.connection.execute(text(_TEXTS))
        if with_statistics:
            await tx.connection.execute(text("ANALYZE"))
    yield database
    await database.aclose()


async def accesses(
    database: Database, wanted: VerificationFilter, person: PersonIndex | None = None
) -> tuple[set[str], str]:
    """Returns the indexes and tables that a deep page reads, and the whole plan."""
    statement, parameters = page_statement(wanted, limit=3, after=Position(500, NOW), person=person)
    whole = await plan_of(database, statement, parameters)
    if database.is_embedded:
        found = re.findall(r"SEARCH \w+ USING (?:COVERING )?(?:INDEX \w+|INTEGER PRIMARY KEY)|SCAN (?!anon)\w+", whole)
    else:
        found = re.findall(r"(?:Index|Index Only) Scan (?:Backward )?using \w+|Seq Scan|Bitmap", whole)
    return {name.rpartition(" ")[2].replace("pk_verification", "KEY") for name in found}, whole


@pytest.mark.parametrize("is_ascending", [False, True], ids=["desc", "asc"])
@pytest.mark.parametrize(("wanted", "index"), CASES, ids=case_id)
async def test_list_scans_one_index(
    filled: Database, wanted: VerificationFilter, index: str, *, is_ascending: bool
) -> None:
    read, whole = await accesses(filled, replace(wanted, is_ascending=is_ascending))

    # The rows themselves are looked up by the primary key.
    assert read == {"KEY"} | ({f"ix_verification_{index}"} - {"ix_verification_primary key"}), whole


async def test_person_is_searched_by_the_digests_alone(filled: Database) -> None:
    wanted = replace(IN_RANGE, client="a", rule_id="7", state=(State.RETRIEVED,))

    read, whole = await accesses(filled, wanted, PERSON)

    assert read == {"KEY", "ix_detection_id_card_index_verification_id"}, whole


@pytest.mark.parametrize("wanted", [OF_CODE, replace(OF_CODE, client="a", state=(State.RETRIEVED,))], ids=case_id)
async def test_result_codes_are_scanned_with_their_index(filled: Database, wanted: VerificationFilter) -> None:
    read, whole = await accesses(filled, wanted)

    assert read == {"KEY", "ix_detection_err_code_verification_id"}, whole


async def test_result_codes_within_a_range_are_looked_up_row_by_row(filled: Database) -> None:
    read, whole = await accesses(filled, replace(IN_RANGE, err_code=(0, 2016)))

    assert read - {"pk_detection"} == {"KEY", f"ix_verification_{RECEIVED}"}, whole


SINGLE = [
    VerificationFilter(),
    VerificationFilter(is_ascending=True),
    VerificationFilter(subject_ref="x"),
    VerificationFilter(state=(State.RETRIEVED,), outcome=(Outcome.FAILED,), client="a"),
]


@pytest.mark.parametrize("wanted", SINGLE, ids=case_id)
async def test_single_scan_is_not_sorted(filled: Database, wanted: VerificationFilter) -> None:
    _, whole = await accesses(filled, wanted)

    # Only the few rows of one page are sorted, after the scan.
    scan = re.findall(
        r"MATERIALIZE anon_1(.*?)SCAN anon_1|->  Limit(.*?)->  [^>]*pk_verification on verification  ", whole, re.DOTALL
    )
    assert scan
    assert not re.search("Sort|TEMP B-TREE", str(scan)), whole
