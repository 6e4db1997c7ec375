"""Retrieval from due to recorded: no failure loses a result, stores a part of it or records it twice."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.config import Settings
from app.domain.media import MediaKind
from app.domain.rule import DEFAULT_ACCOUNT
from app.domain.verification import State, Verification
from app.errors import UnavailableError
from app.faceid.client import DetectAnswer
from app.faceid.error_codes import MEDIA_NOT_STORED
from app.factory import RetrievalServices, Services
from app.sealing.blobs import BlobSealer
from app.services.claim import Claim
from app.storage.media import SpoolFile
from simulator.media import media_of
from tests.support.api import call_back, get, row_of, token
from tests.support.clocks import ShiftedClock
from tests.support.service import Running
from tests.support.simulator import LiveSimulator
from tests.support.stored import calls, counts, media
from tests.support.worker import retrieve_all, retrieve_later, retrieving

INFO_TYPES = ["0", *("".join(digits) for count in range(1, 5) for digits in combinations("1234", count))]
KINDS = {
    "2": [MediaKind.ID_CARD_FRONT, MediaKind.ID_CARD_BACK],
    "3": [MediaKind.BEST_FRAME],
    "4": [MediaKind.LIVENESS_VIDEO],
}


@pytest.fixture
async def retrieval(idle_service: Running) -> AsyncIterator[RetrievalServices]:
    async with retrieving(idle_service) as opened:
        yield opened


def spool_files(settings: Settings) -> list[Path]:
    return [*(settings.media.media_folder / ".spool").glob("*")]


async def test_requested_parts_are_stored_and_no_others(idle_service: Running, idle_api: httpx.AsyncClient) -> None:
    for info_type in INFO_TYPES:
        parts = "1234" if info_type == "0" else info_type
        biz_token = await call_back(idle_api, "passed")
        async with retrieving(idle_service, faceid_info_type=info_type) as retrieval:
            assert await retrieve_all(retrieval) == 1

        seen = await get(idle_api, biz_token)
        expected = {kind for part in parts for kind in KINDS.get(part, [])}
        assert (seen["state"], seen["outcome"]) == ("retrieved", "passed" if "1" in parts else None)
        assert (seen["verdict"]["err_code"], seen["identity"]["name"] is None) == (
            (0, False) if "1" in parts else (None, True)
        )
        assert await media(idle_api, biz_token) == {
            kind: content for kind, content in media_of(biz_token).items() if kind in expected
        }


def spoil_folder(folder: Path) -> None:
    """Prevents the creation of spool files."""
    shutil.rmtree(folder)
    folder.touch()


def spoil_object_folders(folder: Path) -> None:
    """Prevents that spool files become objects."""
    for number in range(256):
        (folder / f"{number:02x}").touch()


@pytest.mark.parametrize("spoil", [spoil_folder, spoil_object_folders])
async def test_media_that_could_not_be_stored_are_fetched_again(
    idle_service: Running, idle_api: httpx.AsyncClient, settings: Settings, spoil: Callable[[Path], None]
) -> None:
    biz_token, clock = await call_back(idle_api, "passed"), ShiftedClock()

    async with retrieving(idle_service, clock) as retrieval:
        spoil(settings.media.media_folder)
        assert await retrieve_all(retrieval) == 1
        failed = await get(idle_api, biz_token)
        assert (failed["state"], failed["retrieval"]["last_error_code"]) == ("pending", MEDIA_NOT_STORED)
        assert spool_files(settings) == []
        repair(settings.media.media_folder)
        assert await counts(idle_service.services) == {"texts": 0, "media": 0, "objects": 0}
        clock.ahead = timedelta(seconds=5)
        assert await retrieve_all(retrieval) == 1

    assert (await get(idle_api, biz_token))["outcome"] == "passed"
    assert await media(idle_api, biz_token) == media_of(biz_token)
    assert await calls(idle_service.services) == [MEDIA_NOT_STORED, None]


async def test_media_of_a_person_who_is_not_finished_are_not_stored(
    idle_service: Running, idle_api: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    biz_token = await call_back(idle_api, "passed")
    async with retrieving(idle_service) as retrieval:
        spoil_object_folders(settings.media.media_folder)
        (claim,) = await retrieval.claims.take(16)
        get_detect_info = claim.account.faceid.get_detect_info

        async def without_text(**parameters: Any) -> DetectAnswer[BlobSealer[SpoolFile]]:
            return replace(await get_detect_info(**parameters), detection=None)

        monkeypatch.setattr(claim.account.faceid, "get_detect_info", without_text)
        await retrieval.retrieve.retrieve(claim)

    row = await row_of(idle_service.services, biz_token)
    assert (row.state, row.polls, row.failures, row.last_error_code) == (State.PENDING, 1, 0, None)
    assert spool_files(settings) == []


def repair(folder: Path) -> None:
    folder.unlink() if folder.is_file() else shutil.rmtree(folder)


async def test_database_failure_while_recording_loses_nothing(
    idle_service: Running, idle_api: httpx.AsyncClient
) -> None:
    services, clock = idle_service.services, ShiftedClock()
    biz_token = await call_back(idle_api, "passed")
    async with retrieving(idle_service, clock) as retrieval:
        (claim,) = await retrieval.claims.take(16)
        await execute(services, "ALTER TABLE media RENAME TO away")
        with pytest.raises(UnavailableError):
            await retrieval.retrieve.retrieve(claim)
        await execute(services, "ALTER TABLE away RENAME TO media")
        assert await row_of(services, biz_token) == claim.verification
        assert await counts(services) == {"texts": 0, "media": 0, "objects": 4}
        assert await retrieve_all(retrieval) == 0

        clock.ahead = timedelta(minutes=2)
        assert await retrieve_all(retrieval) == 1

    assert await media(idle_api, biz_token) == media_of(biz_token)
    # The sweeper removes the four orphans later.
    assert await counts(services) == {"texts": 1, "media": 4, "objects": 8}
    assert await calls(services) == [None]


async def execute(services: Services, statement: str) -> None:
    async with services.database.write() as tx:
        await tx.connection.execute(text(statement))


@pytest.mark.parametrize("is_stale_first", [True, False])
async def test_stale_claim_records_its_call_and_nothing_else(
    idle_service: Running, idle_api: httpx.AsyncClient, is_stale_first: bool
) -> None:
    clock, biz_token = ShiftedClock(), await call_back(idle_api, "passed")
    async with retrieving(idle_service, clock) as retrieval:
        (stale,) = await retrieval.claims.take(16)
        clock.ahead = timedelta(minutes=2)
        (newer,) = await retrieval.claims.take(16)
        for claim in (stale, newer) if is_stale_first else (newer, stale):
            await retrieval.retrieve.retrieve(claim)

    row = await row_of(idle_service.services, biz_token)
    assert (row.state, row.claim, row.attempts, row.is_leased, row.due_at) == (State.RETRIEVED, 2, 1, False, None)
    assert await calls(idle_service.services) == [None, None]
    assert await counts(idle_service.services) == {"texts": 1, "media": 4, "objects": 4}
    assert await media(idle_api, biz_token) == media_of(biz_token)


async def test_newer_result_replaces_the_older_one_and_its_objects(
    idle_service: Running, idle_api: httpx.AsyncClient
) -> None:
    biz_token = await call_back(idle_api, "passed")
    for number in range(3):
        assert await retrieve_later(idle_service, 11 * number) == 1
        assert (await idle_api.post(f"/v1/verifications/{biz_token}/retrieve")).is_success

        assert await counts(idle_service.services) == {"texts": 1, "media": 4, "objects": 4}

    assert await media(idle_api, biz_token) == media_of(biz_token)


@pytest.mark.parametrize(("scenario", "polls"), [("passed", 1), ("unfinished-1", 2)])
async def test_callbacks_during_a_fetch_cause_a_poll_only_if_unfinished(
    idle_service: Running, idle_api: httpx.AsyncClient, retrieval: RetrievalServices, scenario: str, polls: int
) -> None:
    biz_token = await call_back(idle_api, scenario)
    (claim,) = await retrieval.claims.take(16)
    answers = await asyncio.gather(*(idle_api.post("/v1/callbacks", json={"BizToken": biz_token}) for _ in range(100)))
    await retrieval.retrieve.retrieve(claim)

    assert await retrieve_all(retrieval) == 0
    while await retrieve_later(idle_service, 3):
        pass

    assert {answer.status_code for answer in answers} == {202}
    row = await row_of(idle_service.services, biz_token)
    assert (row.state, row.attempts, row.wake_requested, row.due_at) == (State.RETRIEVED, polls, False, None)


async def test_handed_back_claim_can_be_claimed_again_immediately(
    idle_api: httpx.AsyncClient, retrieval: RetrievalServices
) -> None:
    biz_token = await call_back(idle_api, "passed")
    claims = await retrieval.claims.take(16)
    assert await retrieval.claims.take(16) == []

    await retrieval.claims.hand_back(claims)

    (again,) = await retrieval.claims.take(16)
    assert (again.verification.biz_token, again.verification.claim) == (biz_token, 2)


async def add_due(services: Services, count: int) -> None:
    now = datetime.now(UTC)
    async with services.database.write() as tx:
        for _ in range(count):
            biz_token = token("passed")
            row = Verification(
                client="default",
                biz_token=biz_token,
                rule_id="1",
                sealed_key=services.cipher.new_key("default", biz_token),
                received_at=now,
                due_at=now,
                deadline_at=now,
            )
            await tx.verifications.add_all([row])


@pytest.mark.parametrize(("rate", "claimed"), [(0.1, 1), (2, 6), (1000, 16)])
async def test_claims_are_limited_by_the_slots_of_the_next_seconds(
    idle_service: Running, rate: float, claimed: int
) -> None:
    await add_due(idle_service.services, 40)
    async with retrieving(idle_service, faceid_requests_per_second=rate) as retrieval:
        claims = await retrieval.claims.take(16)
        more = await retrieval.claims.take(16)

    assert len(claims) == claimed
    assert [round((claim.slot - claims[0].slot) * rate) for claim in claims] == list(range(claimed))
    assert len(more) == (16 if rate == 1000 else 0)


async def test_missed_slot_is_replaced_by_a_new_one(
    idle_service: Running, idle_api: httpx.AsyncClient, retrieval: RetrievalServices
) -> None:
    biz_token = await call_back(idle_api, "passed")
    (claim,) = await retrieval.claims.take(16)
    before = await reserved_us(idle_service.services)

    await retrieval.retrieve.retrieve(replace(claim, slot=time.monotonic() - 1))

    assert await reserved_us(idle_service.services) >= before + 1000
    assert (await get(idle_api, biz_token))["state"] == "retrieved"


async def reserved_us(services: Services) -> int:
    async with services.database.read() as tx:
        reserved: int = await tx.connection.scalar(text("SELECT tat_us FROM quota"))
    return reserved


async def test_throttled_call_delays_the_next_slots_of_the_account(
    idle_service: Running, idle_api: httpx.AsyncClient
) -> None:
    biz_token, clock = await call_back(idle_api, "throttled-1"), ShiftedClock()
    async with retrieving(idle_service, clock) as retrieval:
        (claim,) = await retrieval.claims.take(16)
        await retrieval.retrieve.retrieve(claim)
        async with idle_service.services.database.read() as tx:
            wait = await tx.quota.wait(DEFAULT_ACCOUNT)
        clock.ahead = timedelta(seconds=5)
        assert await retrieve_all(retrieval) == 1

    assert timedelta() < wait <= timedelta(seconds=1)
    assert await calls(idle_service.services) == ["RequestLimitExceeded", None]
    assert (await get(idle_api, biz_token))["state"] == "retrieved"


async def test_concurrent_workers_retrieve_each_verification_once(idle_service: Running, faceid: LiveSimulator) -> None:
    await add_due(idle_service.services, 40)

    async def work() -> Collection[Claim]:
        async with retrieving(idle_service, faceid_info_type="1") as retrieval:
            done: list[Claim] = []
            while claims := await retrieval.claims.take(3):
                await asyncio.gather(*(retrieval.retrieve.retrieve(claim) for claim in claims))
                done += claims
            return done

    batches = await asyncio.gather(*(work() for _ in range(5)))

    tokens = [claim.verification.biz_token for batch in batches for claim in batch]
    called = [entry.biz_token for entry in faceid.simulator.ledger.entries if entry.biz_token in tokens]
    assert len(tokens) == len(set(tokens)) == 40
    assert sorted(called) == sorted(tokens)
    assert await calls(idle_service.services) == [None] * 40
