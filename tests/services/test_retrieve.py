"""From due to recorded, whatever happens on the way: nothing is lost, nothing half-stored, nothing recorded twice."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from app.config import Settings
from app.domain.detection import MediaKind, Part
from app.domain.rule import DEFAULT_ACCOUNT, Rule
from app.domain.verification import State, Verification
from app.errors import UnavailableError
from app.faceid.error_codes import MEDIA_NOT_STORED, TOO_LARGE
from app.factory import Services
from app.services.claim import Claim
from app.services.retrieve import RetrieveService
from app.services.rules import RuleSettings
from app.storage.quota import QuotaStore
from app.storage.verifications import VerificationStore
from simulator.media import media_of, picture_of
from tests.support.api import call_back, get, row_of, token
from tests.support.clocks import ShiftedClock
from tests.support.service import Running
from tests.support.simulator import LiveSimulator
from tests.support.worker import retrieve_all, retrieving

INFO_TYPES = ["0", *("".join(digits) for count in range(1, 5) for digits in combinations("1234", count))]
KINDS = {
    "2": [MediaKind.ID_CARD_FRONT, MediaKind.ID_CARD_BACK],
    "3": [MediaKind.BEST_FRAME],
    "4": [MediaKind.LIVENESS_VIDEO],
}


@pytest.fixture
async def retrieval(idle_service: Running) -> AsyncIterator[RetrieveService]:
    async with retrieving(idle_service) as opened:
        yield opened


async def media(api: httpx.AsyncClient, biz_token: str) -> dict[MediaKind, bytes]:
    found = (await get(api, biz_token))["media"]
    return {MediaKind(medium["kind"]): (await api.get(medium["href"])).content for medium in found}


async def calls(services: Services) -> Sequence[str | None]:
    """The error codes of all calls on record."""
    async with services.database.read() as tx:
        return (await tx.scalars(text("SELECT error_code FROM upstream_call ORDER BY id"))).all()


async def counts(services: Services) -> dict[str, int]:
    """How much is stored of results, and how many objects there are."""
    async with services.database.read() as tx:
        texts = await tx.scalar(text("SELECT count(*) FROM detection"))
        named = await tx.scalar(text("SELECT count(*) FROM media"))
    return {"texts": texts, "media": named, "objects": len([None async for _ in services.media.list()])}


def drafts(settings: Settings) -> list[Path]:
    return [*(settings.media_folder / ".spool").glob("*")]


async def test_exactly_the_parts_that_are_asked_for_are_stored(
    idle_service: Running, idle_api: httpx.AsyncClient
) -> None:
    for info_type in INFO_TYPES:
        parts = "1234" if info_type == "0" else info_type
        biz_token = await call_back(idle_api, "passed")
        async with retrieving(idle_service, faceid_info_type=info_type) as retrieval:
            assert await retrieve_all(retrieval) == 1

        seen = await get(idle_api, biz_token)
        asked = {kind for part in parts for kind in KINDS.get(part, [])}
        assert (seen["state"], seen["outcome"]) == ("retrieved", "passed" if "1" in parts else None)
        assert (seen["verdict"]["err_code"], seen["identity"]["name"] is None) == (
            (0, False) if "1" in parts else (None, True)
        )
        assert await media(idle_api, biz_token) == {
            kind: content for kind, content in media_of(biz_token).items() if kind in asked
        }


def spoil_folder(folder: Path) -> None:
    """No draft can be written."""
    folder.touch()


def spoil_places(folder: Path) -> None:
    """Drafts can be written, and not become objects."""
    folder.mkdir()
    for number in range(256):
        (folder / f"{number:02x}").touch()


@pytest.mark.parametrize("spoil", [spoil_folder, spoil_places])
async def test_media_that_cannot_be_stored_are_fetched_again_when_they_can(
    idle_service: Running, idle_api: httpx.AsyncClient, settings: Settings, spoil: Callable[[Path], None]
) -> None:
    spoil(settings.media_folder)
    biz_token, clock = await call_back(idle_api, "passed"), ShiftedClock()

    async with retrieving(idle_service, clock) as retrieval:
        assert await retrieve_all(retrieval) == 1
        failed = await get(idle_api, biz_token)
        assert (failed["state"], failed["retrieval"]["last_error_code"]) == ("pending", MEDIA_NOT_STORED)
        assert drafts(settings) == []
        repair(settings.media_folder)
        assert await counts(idle_service.services) == {"texts": 0, "media": 0, "objects": 0}
        clock.ahead = timedelta(seconds=5)
        assert await retrieve_all(retrieval) == 1

    assert (await get(idle_api, biz_token))["outcome"] == "passed"
    assert await media(idle_api, biz_token) == media_of(biz_token)
    assert await calls(idle_service.services) == [MEDIA_NOT_STORED, None]


def repair(folder: Path) -> None:
    folder.unlink() if folder.is_file() else shutil.rmtree(folder)


async def test_a_database_that_fails_at_the_record_loses_nothing(
    idle_service: Running, idle_api: httpx.AsyncClient
) -> None:
    services, clock = idle_service.services, ShiftedClock()
    biz_token = await call_back(idle_api, "passed")
    async with retrieving(idle_service, clock) as retrieval:
        (claim,) = await retrieval.claims.take(16)
        await execute(services, "ALTER TABLE media RENAME TO away")
        with pytest.raises(UnavailableError):
            await retrieval.retrieve(claim)
        await execute(services, "ALTER TABLE away RENAME TO media")
        assert await row_of(services, biz_token) == claim.verification
        assert await counts(services) == {"texts": 0, "media": 0, "objects": 4}
        assert await retrieve_all(retrieval) == 0

        clock.ahead = timedelta(minutes=2)
        assert await retrieve_all(retrieval) == 1

    assert await media(idle_api, biz_token) == media_of(biz_token)
    assert await counts(services) == {"texts": 1, "media": 4, "objects": 8}  # the four orphans are the sweeper's
    assert await calls(services) == [None]


async def execute(services: Services, statement: str) -> None:
    async with services.database.write() as tx:
        await tx.execute(text(statement))


@pytest.mark.parametrize("is_stale_one_first", [True, False])
async def test_a_stale_claim_leaves_nothing_but_the_record_of_its_call(
    idle_service: Running, idle_api: httpx.AsyncClient, is_stale_one_first: bool
) -> None:
    clock, biz_token = ShiftedClock(), await call_back(idle_api, "passed")
    async with retrieving(idle_service, clock) as retrieval:
        (stale,) = await retrieval.claims.take(16)
        clock.ahead = timedelta(minutes=2)
        (newer,) = await retrieval.claims.take(16)
        for claim in (stale, newer) if is_stale_one_first else (newer, stale):
            await retrieval.retrieve(claim)

    row = await row_of(idle_service.services, biz_token)
    assert (row.state, row.claim, row.attempts, row.leased, row.due_at) == (State.RETRIEVED, 2, 1, False, None)
    assert await calls(idle_service.services) == [None, None]
    assert await counts(idle_service.services) == {"texts": 1, "media": 4, "objects": 4}
    assert await media(idle_api, biz_token) == media_of(biz_token)


async def test_a_newer_result_replaces_the_older_and_its_objects(
    idle_service: Running, idle_api: httpx.AsyncClient, retrieval: RetrieveService
) -> None:
    biz_token = await call_back(idle_api, "passed")
    for _ in range(3):
        assert await retrieve_all(retrieval) == 1
        assert (await idle_api.post(f"/v1/verifications/{biz_token}/retrieve")).is_success

        assert await counts(idle_service.services) == {"texts": 1, "media": 4, "objects": 4}

    assert await media(idle_api, biz_token) == media_of(biz_token)


@pytest.mark.parametrize(("scenario", "looks"), [("passed", 1), ("unfinished-1", 2)])
async def test_a_hundred_callbacks_during_a_fetch_make_another_look_only_where_one_is_wanted(
    idle_service: Running, idle_api: httpx.AsyncClient, retrieval: RetrieveService, scenario: str, looks: int
) -> None:
    biz_token = await call_back(idle_api, scenario)
    (claim,) = await retrieval.claims.take(16)
    told = await asyncio.gather(*(idle_api.post("/v1/callbacks", json={"BizToken": biz_token}) for _ in range(100)))
    await retrieval.retrieve(claim)

    while await retrieve_all(retrieval):
        pass

    assert {answer.status_code for answer in told} == {202}
    row = await row_of(idle_service.services, biz_token)
    assert (row.state, row.attempts, row.woken, row.due_at) == (State.RETRIEVED, looks, False, None)


async def test_what_is_handed_back_goes_to_the_next_worker_at_once(
    idle_api: httpx.AsyncClient, retrieval: RetrieveService
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
                sealed_key=services.vault.new_key("default", biz_token),
                received_at=now,
                due_at=now,
                deadline_at=now,
            )
            await VerificationStore().add(tx, row)


@pytest.mark.parametrize(("rate", "claimed"), [(0.1, 1), (2, 6), (1000, 16)])
async def test_no_more_is_claimed_than_there_are_slots_for_soon(
    idle_service: Running, rate: float, claimed: int
) -> None:
    await add_due(idle_service.services, 40)
    async with retrieving(idle_service, faceid_requests_per_second=rate) as retrieval:
        claims = await retrieval.claims.take(16)
        more = await retrieval.claims.take(16)

    assert len(claims) == claimed
    assert [round((claim.slot - claims[0].slot) * rate) for claim in claims] == list(range(claimed))
    assert len(more) == (16 if rate == 1000 else 0)


async def test_a_slot_that_was_missed_is_exchanged_for_another(
    idle_service: Running, idle_api: httpx.AsyncClient, retrieval: RetrieveService
) -> None:
    biz_token = await call_back(idle_api, "passed")
    (claim,) = await retrieval.claims.take(16)
    before = await reserved_us(idle_service.services)

    await retrieval.retrieve(replace(claim, slot=time.monotonic() - 1))

    assert await reserved_us(idle_service.services) >= before + 1000
    assert (await get(idle_api, biz_token))["state"] == "retrieved"


async def reserved_us(services: Services) -> int:
    async with services.database.read() as tx:
        reserved: int = await tx.scalar(text("SELECT tat_us FROM quota"))
    return reserved


async def test_too_much_for_tencent_slows_every_worker_down(idle_service: Running, idle_api: httpx.AsyncClient) -> None:
    biz_token, clock = await call_back(idle_api, "throttled-1"), ShiftedClock()
    async with retrieving(idle_service, clock) as retrieval:
        (claim,) = await retrieval.claims.take(16)
        await retrieval.retrieve(claim)
        async with idle_service.services.database.read() as tx:
            wait = await QuotaStore().wait(tx, DEFAULT_ACCOUNT)
        clock.ahead = timedelta(seconds=5)
        assert await retrieve_all(retrieval) == 1

    assert timedelta() < wait <= timedelta(seconds=1)
    assert await calls(idle_service.services) == ["RequestLimitExceeded", None]
    assert (await get(idle_api, biz_token))["state"] == "retrieved"


async def test_many_workers_retrieve_each_verification_once(idle_service: Running, faceid: LiveSimulator) -> None:
    await add_due(idle_service.services, 40)

    async def work() -> Collection[Claim]:
        async with retrieving(idle_service, faceid_info_type="1") as retrieval:
            done: list[Claim] = []
            while claims := await retrieval.claims.take(3):
                await asyncio.gather(*(retrieval.retrieve(claim) for claim in claims))
                done += claims
            return done

    hauls = await asyncio.gather(*(work() for _ in range(5)))

    tokens = [claim.verification.biz_token for haul in hauls for claim in haul]
    asked = [entry.biz_token for entry in faceid.simulator.ledger.entries if entry.biz_token in tokens]
    assert len(tokens) == len(set(tokens)) == 40
    assert sorted(asked) == sorted(tokens)
    assert await calls(idle_service.services) == [None] * 40


def asked(faceid: LiveSimulator, biz_token: str) -> Sequence[str | None]:
    """What was asked of the simulator for a token: its InfoTypes, in their order."""
    return [entry.info_type for entry in faceid.simulator.ledger.entries if entry.biz_token == biz_token]


async def test_the_verdict_is_there_before_the_media_are_asked_for(
    idle_service: Running, idle_api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    biz_token = await call_back(idle_api, "passed")
    async with retrieving(idle_service, rules={"1": RuleSettings(text_first=True)}) as retrieval:
        assert await retrieve_all(retrieval) == 1
        first = await get(idle_api, biz_token)
        assert await retrieve_all(retrieval) == 1
        assert await retrieve_all(retrieval) == 0

    assert asked(faceid, biz_token) == ["1", "234"]
    assert (first["state"], first["outcome"], first["media"]) == ("retrieved", "passed", [])
    assert first["retrieval"]["due_at"]
    assert await media(idle_api, biz_token) == media_of(biz_token)
    assert await counts(idle_service.services) == {"texts": 1, "media": 4, "objects": 4}


async def test_a_failure_that_may_change_is_pulled_anew_in_all_its_parts(
    idle_service: Running, idle_api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    clock, biz_token = ShiftedClock(), await call_back(idle_api, "failed-2016-x2")
    async with retrieving(idle_service, clock, rules={"1": RuleSettings(text_first=True)}) as retrieval:
        assert [await retrieve_all(retrieval) for _ in range(3)] == [1, 1, 0]
        young = await get(idle_api, biz_token)
        clock.ahead = timedelta(hours=3)
        assert [await retrieve_all(retrieval) for _ in range(3)] == [1, 1, 0]

    old = await get(idle_api, biz_token)
    assert asked(faceid, biz_token) == ["1", "234"] * 2
    assert [(seen["outcome"], seen["provisional"], len(seen["media"])) for seen in (young, old)] == [
        ("failed", True, 4),
        ("passed", False, 4),
    ]


async def test_parts_are_pulled_one_by_one_where_all_at_once_are_too_much(
    idle_service: Running, idle_api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    clock, biz_token = ShiftedClock(), await call_back(idle_api, "error-ResponseSizeLimitExceeded-x1-novideo")
    async with retrieving(idle_service, clock) as retrieval:
        assert await retrieve_all(retrieval) == 1
        clock.ahead = timedelta(seconds=5)
        assert [await retrieve_all(retrieval) for _ in range(5)] == [1, 1, 1, 1, 0]

    assert asked(faceid, biz_token) == ["0", "1", "2", "3", "4"]
    assert (await get(idle_api, biz_token))["retrieval"]["due_at"] is None  # there never was a video
    assert set(await media(idle_api, biz_token)) == set(media_of(biz_token)) - {MediaKind.LIVENESS_VIDEO}


async def test_an_answer_above_our_own_cap_is_taken_in_parts_and_a_part_above_it_does_not_keep_the_others_waiting(
    idle_service: Running, idle_api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    clock, biz_token = ShiftedClock(), await call_back(idle_api, "passed")
    async with retrieving(idle_service, clock, faceid_max_bytes=500_000) as retrieval:
        for _ in range(6):
            await retrieve_all(retrieval)
            clock.ahead += timedelta(minutes=5)

    assert asked(faceid, biz_token)[:5] == ["0", "1", "2", "3", "4"]
    assert set(await media(idle_api, biz_token)) == set(media_of(biz_token)) - {MediaKind.LIVENESS_VIDEO}
    seen = await get(idle_api, biz_token)
    assert (seen["outcome"], seen["retrieval"]["last_error_code"]) == ("passed", TOO_LARGE)


def test_a_part_that_cannot_be_had_is_asked_for_in_turn_with_the_others() -> None:
    asked_for = [Rule().next_parts({Part.TEXT}, one_by_one=True, failures=failures).text for failures in range(4)]

    assert asked_for == ["2", "3", "4", "2"]


async def test_a_rule_may_ask_for_more_than_the_plain_action_gives(
    idle_service: Running, idle_api: httpx.AsyncClient
) -> None:
    biz_token = await call_back(idle_api, "failed-302")
    rule = RuleSettings(enhanced=True, best_frames=2, cut_id_card=True, id_card_avatar=True)
    async with retrieving(idle_service, rules={"1": rule}) as retrieval:
        assert await retrieve_all(retrieval) == 1

    stored = await media(idle_api, biz_token)
    more = [
        MediaKind.ID_CARD_FRONT_CUT,
        MediaKind.ID_CARD_BACK_CUT,
        MediaKind.ID_CARD_AVATAR,
        MediaKind.BEST_FRAME_1,
        MediaKind.BEST_FRAME_2,
    ]
    assert stored == media_of(biz_token) | {kind: picture_of(biz_token, kind) for kind in more}
    identity = await idle_api.get(f"/v1/verifications/{biz_token}/identity", headers={"X-Purpose": "test"})
    assert identity.json()["further"]["IdCardData"] == {"BackWarnInfos": [-9100]}
