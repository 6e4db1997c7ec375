"""Rotating the key rings while the data stays readable, and destroying unused versions."""

import asyncio
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import httpx
import pytest
import structlog
from sqlalchemy import event, text

from app.config import Settings
from app.domain.detection import Detection
from app.domain.media import MediaItem, MediaKind
from app.domain.verification import State, TokenFacts, Verification
from app.errors import ConfigurationError, ConflictError
from app.factory import Services, open_services
from app.observability import digest_of
from app.sealing.keyring import KeyRing, Ring
from app.services.key_rotation import Progress
from app.services.webhook_endpoints import EndpointFacts
from simulator.people import person_of
from tests.support.api import retrieve_new, row_of
from tests.support.service import Running, actor

DATA_RINGS = [Ring.IDENTITY, Ring.BIOMETRIC, Ring.INDEX]
"""The rings whose values are renewed. Links of the audit stay under their version."""
LATER = timedelta(minutes=6)


async def can_read_everything(api: httpx.AsyncClient, biz_token: str) -> bool:
    identity = await api.get(f"/v1/verifications/{biz_token}/identity")
    video = await api.get(f"/v1/verifications/{biz_token}/media/liveness_video")
    person = person_of(biz_token)
    search = await api.post("/v1/verifications/search", json={"id_card": person.id_card})
    return (
        identity.json()["name"] == person.name
        and video.status_code == 200
        and [item["biz_token"] for item in search.json()["items"]] == [biz_token]
    )


async def test_data_is_readable_during_and_after_a_rotation(service: Running, api: httpx.AsyncClient) -> None:
    biz_token, ring = await retrieve_new(api), service.services.cipher.keyring
    rotation = service.services.key_rotation
    late = replace(service.services.key_rotation, clock=lambda: datetime.now(UTC) + LATER)

    for each in DATA_RINGS:
        async for progress in rotation.rotate(each):
            assert progress.done <= progress.total
            assert await can_read_everything(api, biz_token)
        assert await rotation.in_use(each) == {2: {Ring.IDENTITY: 2, Ring.BIOMETRIC: 4, Ring.INDEX: 1}[each]}
        with pytest.raises(ConflictError):
            await rotation.destroy_unused(each)
        assert await late.destroy_unused(each) == [1]

    assert [[known.version for known in ring.versions(each)] for each in DATA_RINGS] == [[2]] * 3
    assert await can_read_everything(api, biz_token)
    assert await can_read_everything(api, await retrieve_new(api))


async def test_interrupted_rotation_continues(service: Running, api: httpx.AsyncClient) -> None:
    biz_token, ring = await retrieve_new(api), service.services.cipher.keyring
    rotation = service.services.key_rotation

    async for _ in rotation.rotate(Ring.BIOMETRIC):
        # The new version exists, and no value is encrypted with it yet.
        break

    assert await rotation.in_use(Ring.BIOMETRIC) == {1: 4}
    assert [step async for step in rotation.rotate(Ring.BIOMETRIC)][-1] == Progress(4, 4)
    assert (ring.newest(Ring.BIOMETRIC), await rotation.in_use(Ring.BIOMETRIC)) == (2, {2: 4})
    assert await can_read_everything(api, biz_token)


async def test_version_that_links_audit_rows_is_kept(service: Running) -> None:
    services = service.services
    late = replace(services.key_rotation, clock=lambda: datetime.now(UTC) + LATER)
    await service.key()
    await services.audit.link()
    for version in (2, 3, 4):
        assert [step async for step in services.key_rotation.rotate(Ring.AUDIT)][-1].altered == 0
        assert services.cipher.keyring.newest(Ring.AUDIT) == version
        if version == 2:
            await service.key()
            await services.audit.link()

    assert await late.destroy_unused(Ring.AUDIT) == [3]

    assert await services.key_rotation.in_use(Ring.AUDIT) == {1: 1, 2: 1}
    assert (await services.audit.verify({})).trouble is None


async def test_rotation_skips_names_and_counts_altered_values(service: Running, api: httpx.AsyncClient) -> None:
    altered, intact = await retrieve_new(api), await retrieve_new(api)
    rotation, alarms = service.services.key_rotation, list[str]()
    keys = service.services.api_keys
    key, _ = await keys.create(actor(), "edited", [], client="default", valid_for=timedelta(days=1))
    token = digest_of(altered)
    row = await row_of(service.services, altered)
    async with service.services.database.write() as tx:
        await tx.connection.execute(text("UPDATE api_key SET scopes = 'admin' WHERE id = :id"), {"id": key.id})
        for statement in (
            "UPDATE verification SET sealed_key = :junk WHERE id = :id",
            "UPDATE media SET sealed_key = :junk WHERE verification_id = :id AND kind = 'best_frame'",
        ):
            await tx.connection.execute(text(statement), {"junk": b"\0\0\0\7junk", "id": row.id})

    name = f"verification {row.id} (token {token})"
    expected = {
        Ring.IDENTITY: Progress(4, 2, 2, [name, f"API key {key.id}"]),
        Ring.BIOMETRIC: Progress(8, 7, 1, [f"best_frame of {name}"]),
        Ring.INDEX: Progress(2, 1, 1, [name]),
    }
    for turn in range(2):
        for ring in DATA_RINGS:
            with structlog.testing.capture_logs() as logs:
                assert [step async for step in rotation.rotate(ring)][-1] == expected[ring]
            alarms += [entry["event"] for entry in logs if "altered" in entry["event"]]
            assert service.services.cipher.keyring.newest(ring) == turn + 2
    # Each row raises the alarm once.
    assert sorted(alarms) == ["altered", "key_altered"]
    assert await can_read_everything(api, intact)

    # The operator gets rid of the altered values, and then of the versions.
    assert (await api.delete(f"/v1/verifications/{altered}")).status_code == 204
    await keys.revoke(actor(), key.id)
    late = replace(rotation, clock=lambda: datetime.now(UTC) + LATER)
    assert [await late.destroy_unused(ring) for ring in DATA_RINGS] == [[1, 2]] * 3
    assert await can_read_everything(api, intact)


async def test_service_starts_although_the_newest_row_is_altered(
    settings: Settings, service: Running, api: httpx.AsyncClient
) -> None:
    intact, altered = await retrieve_new(api), await retrieve_new(api)
    async with service.services.database.write() as tx:
        await tx.connection.execute(
            text("UPDATE verification SET client = 'other' WHERE biz_token = :token"), {"token": altered}
        )

    async with open_services(settings) as again:
        assert (await again.read.get(actor(), intact)).detection is not None


async def test_rotation_and_start_ignore_revoked_keys(settings: Settings, service: Running) -> None:
    keys = service.services.api_keys
    await service.key()
    revoked, _ = await keys.create(actor(), "old", [], client="default", valid_for=LATER)
    await keys.revoke(actor(), revoked.id)

    assert [step async for step in service.services.key_rotation.rotate(Ring.IDENTITY)][-1] == Progress(1, 1)

    assert await service.services.key_rotation.in_use(Ring.IDENTITY) == {2: 1}
    async with open_services(settings) as again:
        assert {key.has_digest for key in await again.api_keys.list(actor())} == {True, False}


async def test_secrets_of_endpoints_are_renewed_and_an_ended_one_is_removed(idle_service: Running) -> None:
    service, rotation = idle_service.services.webhook_endpoints, idle_service.services.key_rotation
    facts = EndpointFacts(url="http://127.0.0.1:9/")
    (both, first), (ended, _) = [await service.create(actor(), facts) for _ in range(2)]
    _, second = await service.rotate(actor(), both.id, keep_for=timedelta(hours=1))
    await service.rotate(actor(), ended.id, keep_for=timedelta(microseconds=1))

    steps = [step async for step in rotation.rotate(Ring.IDENTITY)]

    assert steps[-1] == Progress(4, 4)
    assert await rotation.in_use(Ring.IDENTITY) == {2: 3}
    assert service.secrets.open(await service.get(actor(), both.id), datetime.now(UTC)) == [second, first]


async def test_database_with_an_endpoint_needs_its_key_ring(settings: Settings) -> None:
    async with open_services(settings) as services:
        await services.webhook_endpoints.create(actor(), EndpointFacts(url="http://127.0.0.1:9/"))
    path = settings.keyring.keyring_path
    path.unlink()
    KeyRing.create(path)

    with pytest.raises(ConfigurationError, match="not the key ring that this database was encrypted with"):
        async with open_services(settings):
            pass


async def test_version_in_use_is_not_destroyed(service: Running, api: httpx.AsyncClient) -> None:
    await retrieve_new(api)
    service.services.cipher.keyring.add(Ring.IDENTITY)
    late = replace(service.services.key_rotation, clock=lambda: datetime.now(UTC) + LATER)

    assert await late.destroy_unused(Ring.IDENTITY) == []


async def test_start_with_a_missing_or_another_key_ring_is_refused(settings: Settings, api: httpx.AsyncClient) -> None:
    await retrieve_new(api)
    settings.keyring.keyring_path.unlink()
    with pytest.raises(ConfigurationError, match="KEYRING_FILE"):
        async with open_services(settings):
            pass

    KeyRing.create(settings.keyring.keyring_path)
    with structlog.testing.capture_logs(), pytest.raises(ConfigurationError, match="not the key ring"):
        async with open_services(settings):
            pass


async def test_start_with_a_key_ring_that_decrypts_no_api_key_is_refused(settings: Settings, service: Running) -> None:
    await service.key()
    settings.keyring.keyring_path.unlink()
    KeyRing.create(settings.keyring.keyring_path)

    with structlog.testing.capture_logs(), pytest.raises(ConfigurationError, match="not the key ring"):
        async with open_services(settings):
            pass


ROWS = 450  # three batches


async def test_rotation_updates_rows_in_batches_while_rows_are_added(idle_service: Running) -> None:
    services = idle_service.services
    biz_tokens = [f"row-{number}" for number in range(ROWS)]
    detection = Detection(id_card="000000199001011234", name="测试")
    items = await add_results(services, biz_tokens, detection)
    writer = asyncio.create_task(register_until_cancelled(services))

    statements = Counter[str]()
    engine = services.database.engine.sync_engine
    count = partial(count_statement, statements)
    for ring in DATA_RINGS:
        event.listen(engine, "before_cursor_execute", count)
        progress = [step async for step in services.key_rotation.rotate(ring)][-1]
        event.remove(engine, "before_cursor_execute", count)
        assert (progress.done >= ROWS, progress.altered) == (True, 0)
    writer.cancel()
    with suppress(asyncio.CancelledError):
        await writer

    for ring in DATA_RINGS:
        assert set(await services.key_rotation.in_use(ring)) == {2}
    # Each ring: four selects (the last one is empty) and three updates; API keys add one update. New indexes change the
    # digests, too.
    assert (statements["verification"], statements["media"], statements["detection"]) == (6, 3, 3)
    async with services.database.read() as tx:
        owners = {row.biz_token: row for row in await tx.verifications.find_all(biz_tokens)}
        texts = await tx.results.texts([row.id for row in owners.values()], sealed=True)
        media = await tx.results.media([row.id for row in owners.values()])
    cipher = services.cipher
    assert [cipher.open_text(owners[token], texts[owners[token].id]) for token in biz_tokens] == [detection] * ROWS
    stored = [(owners[token], media[owners[token].id] or []) for token in biz_tokens]
    assert [cipher.media_key(owner, item) for owner, of_owner in stored for item in of_owner] == items
    index, digests = cipher.find_by("default", detection.id_card or "", None)
    assert {text.values[index] for text in texts.values()} == set(digests[-1:])


async def add_results(services: Services, biz_tokens: Sequence[str], detection: Detection) -> list[bytes]:
    """Stores a result with one media item for each token; returns the keys of the items."""
    now, keys = datetime.now(UTC), [bytes([number % 256]) * 32 for number in range(len(biz_tokens))]
    rows = [
        Verification(
            client="default",
            biz_token=biz_token,
            rule_id="1",
            sealed_key=services.cipher.new_key("default", biz_token),
            deadline_at=now,
            due_at=None,
        )
        for biz_token in biz_tokens
    ]
    async with services.database.write() as tx:
        added = await tx.verifications.add_all(rows)
        results, changes = [], []
        for row, key in zip(rows, keys, strict=True):
            item = MediaItem(
                kind=MediaKind.BEST_FRAME,
                object_key=f"key of {row.biz_token}",
                content_type="image/jpeg",
                size_bytes=7,
                sha256="0" * 64,
                sealed_key=b"",
                stored_at=now,
            )
            item = replace(item, sealed_key=services.cipher.wrap_media_key(row, item, key))
            text, before = services.cipher.seal_text(row, detection), added[row.owner]
            after = services.cipher.with_digest(before, replace(before, state=State.RETRIEVED), text=text, added=[item])
            results.append((before.id, text, [item]))
            changes.append((before, after))
        await tx.verifications.save_all(changes, now)
        await tx.results.add_all(results)
    return keys


async def register_until_cancelled(services: Services) -> None:
    for number in itertools.count():
        await services.intake.register(actor(), f"concurrent-{number}", TokenFacts(rule_id="1"))


def count_statement(statements: Counter[str], *arguments: object) -> None:
    """Counts the updates of the rotation by their table."""
    match = re.match(r"UPDATE (\w+) SET (?:sealed_key|id_card_index)", str(arguments[2]))
    if match:
        statements[match[1]] += 1
