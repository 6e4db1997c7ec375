"""The chain names the first row that is not what it was."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime

import pytest
import structlog
from sqlalchemy import text

from app.domain.access import OPERATOR
from app.domain.audit import Action
from app.services.audit import AuditService, Finding
from app.storage.audit import AuditStore
from app.storage.database import Database

NOW = datetime(2026, 11, 24, 8, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def audit(database: Database) -> AuditService:
    return AuditService(database=database, audit=AuditStore(), clock=lambda: NOW)


async def record(audit: AuditService, database: Database, count: int) -> None:
    for number in range(count):
        async with database.write() as tx:
            await audit.record(tx, OPERATOR, Action.SEARCH, fields=["id_card"], request_id=f"r-{number}")


async def test_a_whole_chain_is_whole_and_says_what_it_does_not_cover(audit: AuditService, database: Database) -> None:
    await record(audit, database, 5)
    with structlog.testing.capture_logs() as logs:
        assert (await audit.seal(), await audit.seal()) == (5, 0)
    await record(audit, database, 2)

    seals = {entry["position"]: entry["hash"] for entry in logs if entry["event"] == "audit_sealed"}
    assert list(seals) == [5]
    assert await audit.verify(seals) == Finding(5, 2, seals[5])


async def test_an_empty_chain_is_whole(audit: AuditService) -> None:
    assert await audit.verify({}) == Finding(0, 0, "00" * 32)


COLUMNS = {
    "at": "'2020-01-01 00:00:00'",
    "who": "'x'",
    "key_id": "'x'",
    "client": "'x'",
    "action": "'media'",
    "verification_id": "7",
    "subject": "'x'",
    "fields": "'x'",
    "purpose": "'x'",
    "request_id": "'x'",
    "outcome": "'x'",
}


@pytest.mark.parametrize(
    ("tampering", "trouble"),
    [
        *((f"UPDATE audit SET {name} = {value} WHERE id = 3", "Row 3, at") for name, value in COLUMNS.items()),
        ("DELETE FROM audit WHERE id = 1", "Row 1, at position 1, was removed."),
        ("DELETE FROM audit WHERE id = 3", "Row 3, at position 3, was removed."),
        ("DELETE FROM audit WHERE id = 5", "Row 5, at position 5, was removed."),
        ("DELETE FROM audit_link WHERE position = 2", "The row at position 2 was removed."),
        ("UPDATE audit SET id = -2 WHERE id = 2", "Row 2, at position 2, was removed."),
        ("UPDATE audit_link SET audit_id = 6 - audit_id + 100", "Row 105, at position 1, was removed."),
        (
            (
                "INSERT INTO audit (id, at, who, key_id, client, action, fields, request_id, outcome) SELECT -1,"
                " at, who, key_id, client, action, fields, request_id, outcome FROM audit WHERE id = 1"
            ),
            "Row -1 was inserted",
        ),
        ("DELETE FROM audit_link WHERE position > 3", "Everything behind position 3 was removed, up to 5."),
    ],
)
async def test_the_first_row_that_was_touched_is_named(
    audit: AuditService, database: Database, tampering: str, trouble: str
) -> None:
    await record(audit, database, 5)
    with structlog.testing.capture_logs() as logs:
        await audit.seal()

    async with database.write() as tx:
        await tx.execute(text(tampering))

    finding = await audit.verify({entry["position"]: entry["hash"] for entry in logs})
    assert finding.trouble is not None
    assert finding.trouble.startswith(trouble)


async def test_two_rows_that_changed_places_are_found(audit: AuditService, database: Database) -> None:
    await record(audit, database, 4)
    await audit.seal()

    async with database.write() as tx:
        for old, new in ((2, -2), (3, 2), (-2, 3)):
            await tx.execute(text("UPDATE audit SET id = :new WHERE id = :old"), {"old": old, "new": new})

    assert (await audit.verify({})).trouble == "Row 2, at position 2, was changed or moved."


async def test_a_chain_made_anew_is_betrayed_by_the_log(audit: AuditService, database: Database) -> None:
    await record(audit, database, 4)
    with structlog.testing.capture_logs() as logs:
        await audit.seal()
    async with database.write() as tx:
        await tx.execute(text("UPDATE audit SET who = 'somebody else' WHERE id = 1"))
        await tx.execute(text("DELETE FROM audit_link"))
    await audit.seal()

    assert (await audit.verify({})).trouble is None
    finding = await audit.verify({entry["position"]: entry["hash"] for entry in logs})
    assert (finding.trouble or "").startswith("The chain was rewritten at position 4")


async def test_many_writers_and_two_sealers_make_one_chain(audit: AuditService, database: Database) -> None:
    other = AuditService(database=database, audit=AuditStore(), clock=lambda: NOW)

    async def seal(sealer: AuditService) -> None:
        for _ in range(10):
            await sealer.seal()

    await asyncio.gather(*(record(audit, database, 10) for _ in range(8)), seal(audit), seal(other))
    await audit.seal()

    finding = await audit.verify({})
    assert (finding.links, finding.unsealed, finding.trouble) == (80, 0, None)


async def test_both_databases_give_the_same_chain(audit: AuditService, database: Database) -> None:
    await record(audit, database, 1)
    await audit.seal()

    row = [1, "2026-11-24T08:00:00.123456+00:00", OPERATOR.name, OPERATOR.id, "default", "search"]
    row += [None, None, "id_card", None, "r-0", "done"]
    link = hashlib.sha256(bytes(32) + json.dumps(row).encode()).hexdigest()
    assert await audit.verify({}) == Finding(1, 0, link)


async def test_a_tail_that_was_cut_off_is_found_by_the_log_only(audit: AuditService, database: Database) -> None:
    await record(audit, database, 4)
    with structlog.testing.capture_logs() as logs:
        await audit.seal()
    async with database.write() as tx:
        await tx.execute(text("DELETE FROM audit_link WHERE position > 2"))
        await tx.execute(text("DELETE FROM audit WHERE id > 2"))

    assert (await audit.verify({})).trouble is None
    finding = await audit.verify({entry["position"]: entry["hash"] for entry in logs})
    assert finding.trouble == "Everything behind position 2 was removed, up to 4."


async def test_a_smaller_number_that_is_not_yet_committed_is_waited_for(database: Database) -> None:
    if database.is_embedded:
        pytest.skip("SQLite has one writer: a smaller number is always there first.")
    audit = AuditService(database=database, audit=AuditStore(), clock=lambda: NOW)
    async with database.write() as slow:
        await audit.record(slow, OPERATOR, Action.SEARCH, request_id="slow")
        await record(audit, database, 1)
        sealing = asyncio.create_task(audit.seal())
        await somebody_waits(database)
    await sealing

    finding = await audit.verify({})
    assert (finding.links, finding.unsealed, finding.trouble) == (2, 0, None)


async def somebody_waits(database: Database) -> None:
    for _ in range(1000):
        async with database.read() as tx:
            if await tx.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                return
        await asyncio.sleep(0.01)
    pytest.fail("Nobody waits for a lock.")
