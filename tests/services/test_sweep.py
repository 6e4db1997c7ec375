"""The sweeper removes what is old and no row names, and nothing else."""

import os
import secrets
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from app.config import Settings
from app.domain.detection import MediaKind, Medium
from app.domain.verification import Verification
from app.errors import UnavailableError
from app.factory import Services, open_services
from app.services.sweep import ORPHAN_AGE, SweepService
from app.storage.results import ResultStore
from app.storage.verifications import VerificationStore
from tests.support.servers import S3
from tests.support.service import Running, settings_for

NOW = datetime(2026, 1, 2, tzinfo=UTC)
AGE_SECONDS = ORPHAN_AGE.total_seconds()


@pytest.fixture
async def services(settings: Settings) -> AsyncIterator[Services]:
    async with open_services(settings) as opened:
        yield opened


async def put(services: Services) -> str:
    with services.media.draft() as draft:
        draft.write(b"picture")
        return (await services.media.put(draft))[0]


async def name(services: Services, key: str) -> None:
    row = Verification(client="default", biz_token=secrets.token_hex(), rule_id="1", due_at=None, deadline_at=NOW)
    medium = Medium(
        kind=MediaKind.BEST_FRAME,
        object_key=key,
        content_type="image/jpeg",
        size_bytes=7,
        sha256="0" * 64,
        sealed_key=b"sealed",
        stored_at=NOW,
    )
    async with services.database.write() as tx:
        added = await VerificationStore().add(tx, row)
        assert added is not None
        await ResultStore().add_all(tx, [(added.id, None, [medium])])


async def keys(services: Services) -> set[str]:
    return {stored.key async for stored in services.media.list()}


def age(file: Path, seconds: float) -> None:
    os.utime(file, (time.time() - seconds,) * 2)


async def test_old_objects_go_if_no_row_names_them_and_young_ones_stay(services: Services, settings: Settings) -> None:
    old, young, named = [await put(services) for _ in range(3)]
    await name(services, named)
    for key, seconds in ((old, AGE_SECONDS + 60), (young, AGE_SECONDS - 60), (named, 10 * AGE_SECONDS)):
        age(settings.media_folder / key, seconds)
    stranger = settings.media_folder / "README"
    stranger.touch()
    age(stranger, 10 * AGE_SECONDS)

    assert await services.sweep.sweep() == 1

    assert await keys(services) == {young, named}
    assert stranger.exists()
    assert await services.sweep.sweep() == 0


async def test_hundreds_of_objects_are_gone_through_in_batches(services: Services, settings: Settings) -> None:
    named = await put(services)
    await name(services, named)
    age(settings.media_folder / named, 10 * AGE_SECONDS)
    folder = settings.media_folder / named[:2]
    for number in range(501):
        file = folder / f"{number:030x}"
        file.touch()
        age(file, 10 * AGE_SECONDS)

    assert await services.sweep.sweep() == 501

    assert await keys(services) == {named}


async def test_drafts_of_the_dead_go_and_those_of_the_living_stay(services: Services, settings: Settings) -> None:
    with services.media.draft() as dead, services.media.draft() as living:
        age(dead.path, 2 * 3600)

        await services.sweep.sweep()

        assert [*(settings.media_folder / ".spool").iterdir()] == [living.path]


async def test_a_database_that_does_not_answer_costs_no_object(services: Services, settings: Settings) -> None:
    key = await put(services)
    age(settings.media_folder / key, 10 * AGE_SECONDS)
    async with services.database.write() as tx:
        await tx.exec_driver_sql("ALTER TABLE media RENAME TO away")

    with pytest.raises(UnavailableError):
        await services.sweep.sweep()

    assert await keys(services) == {key}


async def test_a_sweep_finds_nothing_where_nothing_was_ever_stored(services: Services) -> None:
    assert await services.sweep.sweep() == 0


async def test_what_the_api_shows_outlives_every_sweep(service: Running, api: httpx.AsyncClient) -> None:
    biz_token = f"passed-t{secrets.token_hex(6)}"
    await api.post("/v1/callbacks", json={"BizToken": biz_token})
    media = (await api.get(f"/v1/verifications/{biz_token}", params={"wait": 20})).json()["media"]

    assert await later(service.services, timedelta(days=1)).sweep() == 0

    assert len(media) == 4
    assert [(await api.get(medium["href"])).status_code for medium in media] == [200] * 4


def later(services: Services, span: timedelta) -> SweepService:
    return SweepService(
        database=services.database,
        results=ResultStore(),
        media=services.media,
        clock=lambda: datetime.now(UTC) + span,
    )


async def test_a_bucket_is_swept_like_a_folder(tmp_path: Path, s3_server: S3) -> None:
    settings = settings_for(
        tmp_path,
        "http://127.0.0.1:1",
        media_url=f"s3://{s3_server.bucket}/{secrets.token_hex(4)}",
        aws_endpoint_url=s3_server.endpoint,
        aws_access_key_id=s3_server.access_key_id,
        aws_secret_access_key=s3_server.secret_access_key,
    )
    async with open_services(settings) as services:
        orphan, named = [await put(services) for _ in range(2)]
        await name(services, named)
        assert await services.sweep.sweep() == 0
        assert await keys(services) == {orphan, named}

        assert await later(services, 2 * ORPHAN_AGE).sweep() == 1

        assert await keys(services) == {named}
