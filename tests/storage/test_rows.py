"""Impossible values in the tables that every process reads: each costs only its row."""

from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from sqlalchemy import text

from app.domain.api_key import Scope
from app.domain.audit import AuditFilter
from app.domain.counts import CountFilter, Dimension
from app.domain.pause import begin, has_due_probe
from app.domain.verification import LONG_AGO, State
from app.errors import UnauthenticatedError
from app.sealing.keyring import VERSION_BYTES
from app.storage.database import Database
from app.storage.key_usage import VERIFICATIONS
from tests.support.service import Running, actor, everything

NOW = datetime(2026, 1, 2, tzinfo=UTC)
DAY = timedelta(days=1)


async def execute(database: Database, statement: str) -> None:
    async with database.write() as tx:
        await tx.connection.execute(text(statement))


def bad_time(database: Database) -> str:
    return "'zzz'" if database.is_embedded else "'4713-01-01 00:00:00+00 BC'"


@pytest.mark.parametrize("changed", ["scopes = 'zzz'", "networks = 'zzz'", "created_at = {0}", "expires_at = {0}"])
async def test_malformed_api_key_is_rejected_and_stops_no_other(idle_service: Running, changed: str) -> None:
    keys, database = idle_service.services.api_keys, idle_service.services.database
    rights: dict[str, Any] = {"client": "default", "networks": [ip_network("192.0.2.0/24")], "valid_for": DAY}
    (bad, bad_text), (good, good_text) = [await keys.create(actor(), "test", list(Scope), **rights) for _ in range(2)]
    await execute(database, f"UPDATE api_key SET {changed.format(bad_time(database))} WHERE id = '{bad.id}'")

    assert await keys.authenticate(good_text, address="192.0.2.1") == good
    with pytest.raises(UnauthenticatedError):
        await keys.authenticate(bad_text, address="192.0.2.1")
    assert {key.id for key in await keys.list(actor())} == {bad.id, good.id}
    await idle_service.services.health.check()
    await keys.revoke(actor(), bad.id)


async def test_malformed_pause_is_probed_and_stops_no_claim(database: Database) -> None:
    pauses = [begin("default", rule_id, "code", NOW) for rule_id in ("1", "2")]
    async with database.write() as tx:
        for pause in pauses:
            await tx.pauses.begin(pause)
    await execute(database, f"UPDATE pause SET probe_at = {bad_time(database)} WHERE rule_id = '1'")

    async with database.write() as tx:
        malformed, intact = await tx.pauses.list("default")
        taken = await tx.pauses.take_probe(malformed, next_at=NOW + timedelta(minutes=1))
        repaired = await tx.pauses.list("default")

    assert (malformed.probe_at, intact, has_due_probe(malformed, NOW), taken) == (LONG_AGO, pauses[1], True, True)
    assert [pause.probe_at for pause in repaired] == [NOW + timedelta(minutes=1), pauses[1].probe_at]


async def test_malformed_audit_row_is_named_and_stops_neither_list_nor_chain(idle_service: Running) -> None:
    audit, database = idle_service.services.audit, idle_service.services.database
    for _ in range(2):
        await idle_service.key()
    await audit.link()
    await execute(database, f"UPDATE audit SET at = {bad_time(database)} WHERE id = 1")
    await idle_service.key()

    assert await audit.link() == 1
    async with database.read() as tx:
        listed = await tx.audit.list(AuditFilter(), limit=9, before_id=None)
    assert [record.id for record, _ in listed] == [3, 2, 1]
    assert (await audit.verify({})).trouble == "Row 1, at position 1, was changed or moved."


async def test_malformed_doubt_of_the_clock_counts_as_doubt(database: Database) -> None:
    async with database.write() as tx:
        known = await tx.installation.get()
        await tx.installation.save(doubted_since=NOW)
    if database.is_embedded:
        await execute(database, "UPDATE installation SET doubted_since = 'zzz', checked_at = 'zzz'")

    async with database.read() as tx:
        found = await tx.installation.find()

    assert found is not None
    assert (found.database_id, found.checked_at) == (known.database_id, None)
    assert found.doubted_since == (LONG_AGO if database.is_embedded else NOW)


async def test_row_that_lost_its_times_stops_neither_overview_nor_callback(idle_service: Running) -> None:
    database, overview = idle_service.services.database, idle_service.services.overview
    async with idle_service.client(await idle_service.key(*everything())) as api:
        for biz_token in ("malformed", "intact"):
            (await api.put(f"/v1/verifications/{biz_token}")).raise_for_status()
        await execute(
            database, f"UPDATE verification SET registered_at = {bad_time(database)} WHERE biz_token = 'malformed'"
        )
        figures = (await overview.get(actor())).figures
        answers = [
            await api.post("/v1/callbacks", json={"BizToken": biz_token, "RuleId": "2"})
            for biz_token in ("malformed", "intact")
        ]

    assert (figures.pending, figures.oldest_pending_at is not None) == (2, True)
    assert [answer.status_code for answer in answers] == [202, 202]


async def test_malformed_count_is_left_out_and_stops_no_other(idle_service: Running) -> None:
    database = idle_service.services.database
    async with idle_service.client(await idle_service.key(*everything())) as api:
        for number in range(2):
            (await api.put(f"/v1/verifications/counted-{number}")).raise_for_status()
    columns = "day, client, rule_id, state, outcome, err_code, number"
    impossible = ["'2026-01-02', 'c', '1', 'zzz', '', '', 1", "'2026-01-02', 'c', '1', 'pending', 'zzz', '', 1"]
    if database.is_embedded:
        impossible += ["'zzz', 'c', '1', 'pending', '', '', 1", "'2026-01-02', 'c', '1', 'pending', '', '', 'zzz'"]
    for row in impossible:
        for table in ("count_change", "count_total"):
            await execute(database, f"INSERT INTO {table} ({columns}) VALUES ({row})")

    async with database.write() as tx:
        await tx.counts.collect(limit=100)
    async with database.read() as tx:
        wanted = CountFilter(start=date(2000, 1, 1), end=date(2100, 1, 1))
        counted = await tx.counts.count(wanted, [Dimension.STATE, Dimension.OUTCOME], limit=100)

    assert ({Dimension.STATE: State.PENDING, Dimension.OUTCOME: None}, 2) in counted


async def test_malformed_key_of_a_row_stops_no_count_of_key_versions(idle_service: Running) -> None:
    database = idle_service.services.database
    async with idle_service.client(await idle_service.key(*everything())) as api:
        for number in range(2):
            (await api.put(f"/v1/verifications/kept-{number}")).raise_for_status()
    if database.is_embedded:
        await execute(database, "UPDATE verification SET sealed_key = 'zzz' WHERE biz_token = 'kept-0'")

    async with database.read() as tx:
        counted = await tx.key_usage.count(VERIFICATIONS, VERSION_BYTES)

    assert list(counted.values()) == ([1] if database.is_embedded else [2])
