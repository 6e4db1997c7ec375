"""The sweeper removes old objects and spool files that no row names, and nothing else."""

import os
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import structlog

from app.config import Settings
from app.domain.media import MediaItem, MediaKind
from app.domain.verification import Verification
from app.errors import UnavailableError
from app.factory import Services, open_services
from app.services.orphans import ORPHAN_AGE
from app.storage.media.s3 import BucketStore
from tests.support.servers import S3
from tests.support.service import Running, settings_for

NOW = datetime(2026, 1, 2, tzinfo=UTC)
AGE_SECONDS = ORPHAN_AGE.total_seconds()


@pytest.fixture
async def services(settings: Settings) -> AsyncIterator[Services]:
    async with open_services(settings) as opened:
        await opened.media_guard.require_owner()
        yield opened


async def put(services: Services) -> str:
    with services.media_store.new_file() as spool_file:
        spool_file.write(b"picture")
        return (await services.media_store.put(spool_file))[0]


async def add_media_row(services: Services, key: str) -> None:
    row = Verification(client="default", biz_token=secrets.token_hex(), rule_id="1", due_at=None, deadline_at=NOW)
    item = MediaItem(
        kind=MediaKind.BEST_FRAME,
        object_key=key,
        content_type="image/jpeg",
        size_bytes=7,
        sha256="0" * 64,
        sealed_key=b"sealed",
        stored_at=NOW,
    )
    async with services.database.write() as tx:
        added = await tx.verifications.add_all([row])
        await tx.results.add_all([(added[row.owner].id, None, [item])])


async def keys(services: Services) -> set[str]:
    return {stored.key async for stored in services.media_store.list()}


def age(file: Path, seconds: float) -> None:
    os.utime(file, (time.time() - seconds,) * 2)


async def test_old_objects_without_a_row_are_removed_and_others_kept(services: Services, settings: Settings) -> None:
    old, young, named = [await put(services) for _ in range(3)]
    await add_media_row(services, named)
    for key, seconds in ((old, AGE_SECONDS + 60), (young, AGE_SECONDS - 60), (named, 10 * AGE_SECONDS)):
        age(settings.media.media_folder / key, seconds)
    stranger = settings.media.media_folder / "README"
    stranger.touch()
    age(stranger, 10 * AGE_SECONDS)

    assert await services.orphans.sweep() == 1

    assert await keys(services) == {young, named}
    assert stranger.exists()
    assert await services.orphans.sweep() == 0


async def test_hundreds_of_orphans_are_removed_in_one_sweep(services: Services, settings: Settings) -> None:
    named = await put(services)
    await add_media_row(services, named)
    age(settings.media.media_folder / named, 10 * AGE_SECONDS)
    add_orphans(settings, named[:2], 501)

    found = await services.orphans.find()
    assert (len(found.keys), found.checked) == (501, 502)
    assert await services.orphans.remove(found) == 501

    assert await keys(services) == {named}


def add_orphans(settings: Settings, folder: str, count: int) -> None:
    for number in range(count):
        file = settings.media.media_folder / folder / f"{number:030x}"
        file.touch()
        age(file, 10 * AGE_SECONDS)


@pytest.mark.parametrize(("orphans", "removed"), [(20, 20), (21, 0)])
async def test_sweep_stops_if_more_than_20_and_most_objects_are_orphans(
    services: Services, settings: Settings, orphans: int, removed: int
) -> None:
    named = await put(services)
    await add_media_row(services, named)
    add_orphans(settings, named[:2], orphans)

    with structlog.testing.capture_logs() as logs:
        assert await services.orphans.sweep() == removed

    assert len(await keys(services)) == 1 + orphans - removed
    assert [log["event"] for log in logs] == ["orphans_removed" if removed else "orphans_kept"]


async def test_sweep_with_an_empty_database_removes_nothing(services: Services, settings: Settings) -> None:
    """The database was lost or is not restored yet, and the store's owner mark was restored with it."""
    key = await put(services)
    age(settings.media.media_folder / key, 10 * AGE_SECONDS)

    assert await services.orphans.sweep() == 0

    assert await keys(services) == {key}


async def test_old_spool_files_are_removed_and_new_ones_kept(services: Services, settings: Settings) -> None:
    with services.media_store.new_file() as old, services.media_store.new_file() as new:
        age(old.path, 2 * 3600)

        await services.orphans.sweep()

        assert [*(settings.media.media_folder / ".spool").iterdir()] == [new.path]


async def test_unavailable_database_costs_no_object(services: Services, settings: Settings) -> None:
    key = await put(services)
    age(settings.media.media_folder / key, 10 * AGE_SECONDS)
    async with services.database.write() as tx:
        await tx.connection.exec_driver_sql("ALTER TABLE media RENAME TO away")

    with pytest.raises(UnavailableError):
        await services.orphans.sweep()

    assert await keys(services) == {key}


async def test_sweep_of_an_unused_store_removes_nothing(services: Services) -> None:
    assert await services.orphans.sweep() == 0


async def test_media_of_a_result_survive_a_sweep(service: Running, api: httpx.AsyncClient) -> None:
    biz_token = f"passed-t{secrets.token_hex(6)}"
    await api.post("/v1/callbacks", json={"BizToken": biz_token})
    media = (await api.get(f"/v1/verifications/{biz_token}", params={"wait": 20})).json()["media"]

    for key in await keys(service.services):
        age(service.services.settings.media.media_folder / key, 10 * AGE_SECONDS)
    assert await service.services.orphans.sweep() == 0

    assert len(media) == 4
    assert [(await api.get(item["href"])).status_code for item in media] == [200] * 4


class LaterStore(BucketStore):
    """A bucket whose clock is ahead of the one that dated its objects."""

    async def mark(self, owner: str) -> datetime:
        """See `MediaStore`."""
        return await super().mark(owner) + 2 * ORPHAN_AGE


async def test_bucket_is_swept_like_a_folder(tmp_path: Path, s3_server: S3) -> None:
    settings = settings_for(
        tmp_path,
        "http://127.0.0.1:1",
        **s3_server.settings(secrets.token_hex(4)),
    )
    async with open_services(settings) as services:
        orphan, named = [await put(services) for _ in range(2)]
        await add_media_row(services, named)
        assert await services.orphans.sweep() == 0
        assert await keys(services) == {orphan, named}

        assert await replace(services.orphans, media=LaterStore(settings.media)).sweep() == 1

        assert await keys(services) == {named}
