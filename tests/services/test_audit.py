"""The audit chain: verifying it names the first row that was changed, removed or inserted."""

import asyncio
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from sqlalchemy import text

from app.domain.api_key import OPERATOR, Actor
from app.domain.audit import Action, AuditFilter
from app.errors import UnauthenticatedError
from app.sealing.aead import context_of
from app.sealing.keyring import KeyRing, Ring
from app.services.audit import AuditService, ChainReport
from app.storage.database import Database
from tests.support.databases import wait_for_blocked_sessions
from tests.support.service import actor

NOW = datetime(2026, 11, 24, 8, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def keyring(tmp_path: Path) -> KeyRing:
    return KeyRing.create(tmp_path / "keyring.json")


@pytest.fixture
def audit(database: Database, keyring: KeyRing) -> AuditService:
    return AuditService(database=database, keyring=keyring, clock=lambda: NOW)


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
    "action": "'no action'",
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


async def test_concurrent_writers_and_sealers_make_one_chain(
    audit: AuditService, database: Database, keyring: KeyRing
) -> None:
    other = AuditService(database=database, keyring=keyring, clock=lambda: NOW)

    async def seal(sealer: AuditService) -> None:
        for _ in range(10):
            await sealer.link()

    await asyncio.gather(*(record(audit, database, 10) for _ in range(8)), seal(audit), seal(other))
    await audit.link()

    finding = await audit.verify({})
    assert (finding.links, finding.unsealed, finding.trouble) == (80, 0, None)


def link_of_the_first_row(key: bytes | None) -> str:
    """Returns the hash of the first link as docs/adr describes it, with the key of version 1 or without a key."""
    row = [1, "2026-11-24T08:00:00.123456+00:00", OPERATOR.name, OPERATOR.id, "default", "search"]
    data = bytes(32) + json.dumps([*row, None, None, "id_card", None, "r-0", "done"]).encode()
    if key is None:
        return hashlib.sha256(data).hexdigest()
    return f"00000001{hmac.digest(key, context_of('audit') + data, 'sha256').hex()}"


async def test_hash_of_a_row_is_the_same_on_both_databases(
    audit: AuditService, database: Database, keyring: KeyRing
) -> None:
    await record(audit, database, 1)
    await audit.link()

    key = keyring.versions(Ring.AUDIT)[0].key
    assert await audit.verify({}) == ChainReport(1, 0, link_of_the_first_row(key))


def without_audit_ring(keyring: KeyRing) -> KeyRing:
    """Returns the key ring as an earlier version of the service created it."""
    rings = json.loads(keyring.path.read_text())
    del rings["audit"]
    old = keyring.path.with_name("old.json")
    old.write_text(json.dumps(rings))
    return KeyRing(old)


async def test_links_of_an_earlier_version_stay_valid(database: Database, keyring: KeyRing) -> None:
    old = without_audit_ring(keyring)
    audit = AuditService(database=database, keyring=old, clock=lambda: NOW)
    await record(audit, database, 1)
    await audit.link()
    assert await audit.verify({}) == ChainReport(1, 0, link_of_the_first_row(None))

    for version in (1, 2):
        assert old.add(Ring.AUDIT) == version
        await record(audit, database, 2)
        await audit.link()

    report = await audit.verify({})
    assert (report.links, report.trouble, report.last_hash[:8]) == (5, None, "00000002")


async def rebuild(database: Database, *, from_position: int) -> None:
    """Computes the chain again without the key, as an attacker with the database alone could."""
    last = bytes(32)
    async with database.write() as tx:
        chain = await tx.audit.chain(0, limit=100)
        for link, row in chain:
            assert row is not None
            new = hashlib.sha256(row.linked_to(last)).digest() if link.position >= from_position else link.hash
            await tx.connection.execute(
                text("UPDATE audit_link SET hash = :hash WHERE position = :position"),
                {"hash": new, "position": link.position},
            )
            last = new


@pytest.mark.parametrize("from_position", [1, 3])
async def test_chain_that_was_rebuilt_without_the_key_ring_is_detected(
    database: Database, keyring: KeyRing, from_position: int
) -> None:
    audit = AuditService(database=database, keyring=keyring, clock=lambda: datetime.now(UTC) + timedelta(days=1))
    await record(audit, database, 4)
    await audit.link()
    async with database.write() as tx:
        await tx.connection.execute(text("UPDATE audit SET who = 'somebody else' WHERE id = 4"))

    await rebuild(database, from_position=from_position)

    row = f"Row {from_position}, at position {from_position},"
    assert (await audit.verify({})).trouble == f"{row} was linked without the key ring."


async def test_links_of_another_key_ring_are_detected(audit: AuditService, database: Database, tmp_path: Path) -> None:
    other = AuditService(database=database, keyring=KeyRing.create(tmp_path / "other.json"), clock=lambda: NOW)
    await record(audit, database, 2)
    await other.link()

    assert (await audit.verify({})).trouble == "Row 1, at position 1, was changed or moved."


async def test_flood_of_refused_authentications_fills_no_disk(audit: AuditService, database: Database) -> None:
    addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "not an address", None]
    addresses += [f"10.0.{number // 250}.{number % 250}" for number in range(1500)]

    for address in addresses * 2:
        for reason in ("unknown", "network"):
            error = UnauthenticatedError("refused", reason=reason, key_id="0123456789ab")
            audit.report_refused_authentication(error, address=address, request_id="r")
    await audit.aclose()

    async with database.read() as tx:
        found = [row for row, _ in await tx.audit.list(AuditFilter(), limit=2000, before_id=None)]
    assert len(found) == 1000
    assert [row.subject for row in found[::-1]][:10:2] == [
        "192.0.2.1",
        "192.0.2.2",
        "2001:db8::1",
        "2001:db8:0:1::1",
        None,
    ]


async def test_running_worker_reports_that_links_were_removed(audit: AuditService, database: Database) -> None:
    await record(audit, database, 3)
    await audit.link()
    async with database.write() as tx:
        await tx.connection.execute(text("DELETE FROM audit_link WHERE position > 1"))

    with structlog.testing.capture_logs() as logs:
        await audit.link()
        await audit.link()

    assert [(entry["event"], entry["position"]) for entry in logs] == [("audit_rewritten", 3), ("audit_sealed", 3)]


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


async def test_sealing_waits_for_uncommitted_rows_with_smaller_ids(audit: AuditService, database: Database) -> None:
    if database.is_embedded:
        pytest.skip("SQLite has one writer: smaller ids are always committed first.")
    async with database.write() as slow:
        await audit.record(slow, audit.describe(Actor(caller=OPERATOR, request_id="slow"), Action.SEARCH))
        await record(audit, database, 1)
        sealing = asyncio.create_task(audit.link())
        await wait_for_blocked_sessions(database, 1)
    await sealing

    finding = await audit.verify({})
    assert (finding.links, finding.unsealed, finding.trouble) == (2, 0, None)
