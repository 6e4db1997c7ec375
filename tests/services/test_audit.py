"""The audit chain: verifying it names the first row that was changed, removed or inserted."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime

import pytest
import structlog
from sqlalchemy import text

from app.domain.api_key import OPERATOR, Actor
from app.domain.audit import Action
from app.services.audit import AuditService, ChainReport
from app.storage.database import Database
from tests.support.databases import wait_for_blocked_sessions
from tests.support.service import actor

NOW = datetime(2026, 11, 24, 8, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def audit(database: Database) -> AuditService:
    return AuditService(database=database, clock=lambda: NOW)


async def record(audit: AuditService, database: Database, count: int) -> None:
    for number in range(count):
        async with database.write() as tx:
            known = Actor(caller=OPERATOR, request_id=f"r-{number}")
            await audit.record(tx, audit.describe(known, Action.SEARCH, fields=["id_card"]))


async def test_intact_chain_verifies_and_counts_unsealed_rows(audit: AuditService, database: Database) -> None:
    await record(audit, database, 5)
    with structlog.testing.capture_logs() as logs:
        assert (await audit.link(), await audit.link()) == (5, 0)
    await record(audit, database, 2)

    seals = {entry["position"]: entry["hash"] for entry in logs if entry["event"] == "audit_sealed"}
    assert list(seals) == [5]
    assert await audit.verify(seals) == ChainReport(5, 2, seals[5])


async def test_linking_logs_each_revocation_of_an_api_key(audit: AuditService, database: Database) -> None:
    await record(audit, database, 1)
    async with database.write() as tx:
        await audit.record(tx, audit.describe(actor(), Action.KEY_REVOKED, subject="0123456789ab"))

    with structlog.testing.capture_logs() as logs:
        await audit.link()

    assert [entry["key_id"] for entry in logs if entry["event"] == "key_revoked"] == ["0123456789ab"]


async def test_empty_chain_verifies(audit: AuditService) -> None:
    assert await audit.verify({}) == ChainReport(0, 0, "00" * 32)


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
        ("DELETE FROM audit_link WHERE position > 3", "Everything after position 3 was removed, up to 5."),
    ],
)
async def test_first_tampered_row_is_named(
    audit: AuditService, database: Database, tampering: str, trouble: str
) -> None:
    await record(audit, database, 5)
    with structlog.testing.capture_logs() as logs:
        await audit.link()

    async with database.write() as tx:
        await tx.connection.execute(text(tampering))

    finding = await audit.verify({entry["position"]: entry["hash"] for entry in logs})
    assert finding.trouble is not None
    assert finding.trouble.startswith(trouble)


async def test_swapped_rows_are_detected(audit: AuditService, database: Database) -> None:
    await record(audit, database, 4)
    await audit.link()

    async with database.write() as tx:
        for old, new in ((2, -2), (3, 2), (-2, 3)):
            await tx.connection.execute(text("UPDATE audit SET id = :new WHERE id = :old"), {"old": old, "new": new})

    assert (await audit.verify({})).trouble == "Row 2, at position 2, was changed or moved."


async def test_rebuilt_chain_is_detected_by_logged_seals(audit: AuditService, database: Database) -> None:
    await record(audit, database, 4)
    with structlog.testing.capture_logs() as logs:
        await audit.link()
    async with database.write() as tx:
        await tx.connection.execute(text("UPDATE audit SET who = 'somebody else' WHERE id = 1"))
        await tx.connection.execute(text("DELETE FROM audit_link"))
    await audit.link()

    assert (await audit.verify({})).trouble is None
    finding = await audit.verify({entry["position"]: entry["hash"] for entry in logs})
    assert (finding.trouble or "").startswith("The chain was rewritten at position 4")


async def test_concurrent_writers_and_sealers_make_one_chain(audit: AuditService, database: Database) -> None:
    other = AuditService(database=database, clock=lambda: NOW)

    async def seal(sealer: AuditService) -> None:
        for _ in range(10):
            await sealer.link()

    await asyncio.gather(*(record(audit, database, 10) for _ in range(8)), seal(audit), seal(other))
    await audit.link()

    finding = await audit.verify({})
    assert (finding.links, finding.unsealed, finding.trouble) == (80, 0, None)


async def test_hash_of_a_row_is_the_same_on_both_databases(audit: AuditService, database: Database) -> None:
    await record(audit, database, 1)
    await audit.link()

    row = [1, "2026-11-24T08:00:00.123456+00:00", OPERATOR.name, OPERATOR.id, "default", "search"]
    row += [None, None, "id_card", None, "r-0", "done"]
    link = hashlib.sha256(bytes(32) + json.dumps(row).encode()).hexdigest()
    assert await audit.verify({}) == ChainReport(1, 0, link)


async def test_removed_tail_is_detected_by_logged_seals_only(audit: AuditService, database: Database) -> None:
    await record(audit, database, 4)
    with structlog.testing.capture_logs() as logs:
        await audit.link()
    async with database.write() as tx:
        await tx.connection.execute(text("DELETE FROM audit_link WHERE position > 2"))
        await tx.connection.execute(text("DELETE FROM audit WHERE id > 2"))

    assert (await audit.verify({})).trouble is None
    finding = await audit.verify({entry["position"]: entry["hash"] for entry in logs})
    assert finding.trouble == "Everything after position 2 was removed, up to 4."


async def test_sealing_waits_for_uncommitted_rows_with_smaller_ids(database: Database) -> None:
    if database.is_embedded:
        pytest.skip("SQLite has one writer: smaller ids are always committed first.")
    audit = AuditService(database=database, clock=lambda: NOW)
    async with database.write() as slow:
        await audit.record(slow, audit.describe(Actor(caller=OPERATOR, request_id="slow"), Action.SEARCH))
        await record(audit, database, 1)
        sealing = asyncio.create_task(audit.link())
        await wait_for_blocked_sessions(database, 1)
    await sealing

    finding = await audit.verify({})
    assert (finding.links, finding.unsealed, finding.trouble) == (2, 0, None)
