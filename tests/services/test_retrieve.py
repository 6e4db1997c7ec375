"""Retrieval from due to recorded: no failure loses a result, stores a part of it or records it twice."""

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from sqlalchemy import text

from app.config import Settings
from app.domain.detection import InfoType, Part
from app.domain.media import MediaKind, UnreadableMedia, UnreadableReason
from app.domain.rule import DEFAULT_ACCOUNT, Rule
from app.domain.verification import Priority, State, Verification
from app.errors import UnavailableError
from app.faceid.client import DetectAnswer
from app.faceid.error_codes import MEDIA_NOT_STORED, TOO_LARGE
from app.factory import RetrievalServices, Services
from app.sealing.blobs import BlobSealer
from app.services.claim import Claim
from app.services.rule_settings import RuleSettings
from app.storage.media import SpoolFile
from simulator.answers import address_of
from simulator.media import media_of, picture_of
from tests.faceid.test_client import peer, saying
from tests.faceid.test_network import unresponsive
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
async def retrieval(idle_service: Running) -> AsyncIterator[RetrievalServices]:
    async with retrieving(idle_service) as opened:
        yield opened


async def media(api: httpx.AsyncClient, biz_token: str) -> dict[MediaKind, bytes]:
    found = (await get(api, biz_token))["media"]
    return {MediaKind(item["kind"]): (await api.get(item["href"])).content for item in found}


async def calls(services: Services) -> Sequence[str | None]:
    """Returns the error codes of all recorded calls."""
    async with services.database.read() as tx:
        return (await tx.connection.scalars(text("SELECT error_code FROM upstream_call ORDER BY id"))).all()


async def counts(services: Services) -> dict[str, int]:
    """Returns how many texts, media rows and objects are stored."""
    async with services.database.read() as tx:
        texts = await tx.connection.scalar(text("SELECT count(*) FROM detection"))
        named = await tx.connection.scalar(text("SELECT count(*) FROM media"))
    return {"texts": texts, "media": named, "objects": len([None async for _ in services.media_store.list()])}


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
    folder.touch()


def spoil_object_folders(folder: Path) -> None:
    """Prevents that spool files become objects."""
    folder.mkdir()
    for number in range(256):
        (folder / f"{number:02x}").touch()


@pytest.mark.parametrize("spoil", [spoil_folder, spoil_object_folders])
async def test_media_that_could_not_be_stored_are_fetched_again(
    idle_service: Running, idle_api: httpx.AsyncClient, settings: Settings, spoil: Callable[[Path], None]
) -> None:
    spoil(settings.media.media_folder)
    biz_token, clock = await call_back(idle_api, "passed"), ShiftedClock()

    async with retrieving(idle_service, clock) as retrieval:
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
    spoil_object_folders(settings.media.media_folder)
    biz_token = await call_back(idle_api, "passed")
    async with retrieving(idle_service) as retrieval:
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
    idle_service: Running, idle_api: httpx.AsyncClient, retrieval: RetrievalServices
) -> None:
    biz_token = await call_back(idle_api, "passed")
    for _ in range(3):
        assert await retrieve_all(retrieval) == 1
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

    while await retrieve_all(retrieval):
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


def requested_info_types(faceid: LiveSimulator, biz_token: str) -> Sequence[str | None]:
    """Returns the InfoTypes of the token's calls to the simulator, in order."""
    return [entry.info_type for entry in faceid.simulator.ledger.entries if entry.biz_token == biz_token]


async def test_text_first_stores_the_verdict_before_the_media_are_fetched(
    idle_service: Running, idle_api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    biz_token = await call_back(idle_api, "passed")
    async with retrieving(idle_service, rules={"1": RuleSettings(text_first=True)}) as retrieval:
        assert await retrieve_all(retrieval) == 1
        first = await get(idle_api, biz_token)
        assert await retrieve_all(retrieval) == 1
        assert await retrieve_all(retrieval) == 0

    assert requested_info_types(faceid, biz_token) == ["1", "234"]
    assert (first["state"], first["outcome"], first["media"]) == ("retrieved", "passed", [])
    assert first["retrieval"]["due_at"]
    assert await media(idle_api, biz_token) == media_of(biz_token)
    assert await counts(idle_service.services) == {"texts": 1, "media": 4, "objects": 4}


async def test_provisional_failure_is_fetched_again_in_all_parts(
    idle_service: Running, idle_api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    clock, biz_token = ShiftedClock(), await call_back(idle_api, "failed-2016-x2")
    async with retrieving(idle_service, clock, rules={"1": RuleSettings(text_first=True)}) as retrieval:
        assert [await retrieve_all(retrieval) for _ in range(3)] == [1, 1, 0]
        young = await get(idle_api, biz_token)
        clock.ahead = timedelta(hours=3)
        assert [await retrieve_all(retrieval) for _ in range(3)] == [1, 1, 0]

    old = await get(idle_api, biz_token)
    assert requested_info_types(faceid, biz_token) == ["1", "234"] * 2
    assert [(seen["outcome"], seen["provisional"], len(seen["media"])) for seen in (young, old)] == [
        ("failed", True, 4),
        ("passed", False, 4),
    ]


async def test_parts_are_fetched_separately_if_the_whole_is_too_large(
    idle_service: Running, idle_api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    clock, biz_token = ShiftedClock(), await call_back(idle_api, "error-ResponseSizeLimitExceeded-x1-novideo")
    async with retrieving(idle_service, clock) as retrieval:
        assert await retrieve_all(retrieval) == 1
        clock.ahead = timedelta(seconds=5)
        assert [await retrieve_all(retrieval) for _ in range(5)] == [1, 1, 1, 1, 0]

    assert requested_info_types(faceid, biz_token) == ["0", "1", "2", "3", "4"]
    seen = await get(idle_api, biz_token)
    # The video may be stored late.
    assert (seen["unreadable_media"], seen["retrieval"]["due_at"] is None) == ([], False)
    assert set(await media(idle_api, biz_token)) == set(media_of(biz_token)) - {MediaKind.LIVENESS_VIDEO}


@pytest.mark.parametrize(
    ("scenario", "info_types"),
    [
        ("latency-3000-x3", ["0", "0", "0", "1"]),
        ("http502-x2-latency-3000-x1", ["0", "0", "0", "0"]),
        ("http502-x1-latency-3000-x2", ["0", "0", "0", "1"]),
    ],
)
async def test_only_timeouts_in_a_row_show_that_the_whole_is_too_large(
    idle_service: Running, idle_api: httpx.AsyncClient, faceid: LiveSimulator, scenario: str, info_types: list[str]
) -> None:
    clock, biz_token = ShiftedClock(), await call_back(idle_api, scenario)
    async with retrieving(idle_service, clock, faceid_timeout_seconds=0.5) as retrieval:
        for _ in range(4):
            assert await retrieve_all(retrieval) == 1
            clock.ahead += timedelta(minutes=1)

    assert requested_info_types(faceid, biz_token) == info_types


async def test_token_that_waited_for_an_outage_costs_one_call(
    idle_service: Running, idle_api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    clock, biz_token = ShiftedClock(), await call_back(idle_api, "passed")
    with unresponsive("127.0.0.2") as port:
        away = {"faceid_endpoint": f"http://127.0.0.2:{port}", "faceid_timeout_seconds": 1}
        async with retrieving(idle_service, clock, **away) as retrieval:
            for _ in range(4):
                assert await retrieve_all(retrieval) == 1
                clock.ahead += timedelta(minutes=1)
    async with retrieving(idle_service, clock) as retrieval:
        assert await retrieve_all(retrieval) == 1

    assert await calls(idle_service.services) == ["network.connect_timeout"] * 4 + [None]
    assert requested_info_types(faceid, biz_token) == ["0"]
    assert await media(idle_api, biz_token) == media_of(biz_token)


async def test_part_above_the_size_limit_does_not_block_the_other_parts(
    idle_service: Running, idle_api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    clock, biz_token = ShiftedClock(), await call_back(idle_api, "passed")
    async with retrieving(idle_service, clock, faceid_max_bytes=500_000) as retrieval:
        for _ in range(6):
            await retrieve_all(retrieval)
            clock.ahead += timedelta(minutes=5)

    assert requested_info_types(faceid, biz_token)[:5] == ["0", "1", "2", "3", "4"]
    assert set(await media(idle_api, biz_token)) == set(media_of(biz_token)) - {MediaKind.LIVENESS_VIDEO}
    seen = await get(idle_api, biz_token)
    assert (seen["outcome"], seen["retrieval"]["last_error_code"]) == ("passed", TOO_LARGE)


def test_failing_part_takes_turns_with_the_other_parts() -> None:
    info_types = [Rule().next_parts({Part.TEXT}, separately=True, turn=turn).text for turn in range(4)]

    assert info_types == ["2", "3", "4", "2"]


def test_awaited_parts_are_requested_with_the_text() -> None:
    awaited = {Part.ID_CARD, Part.VIDEO}
    rules = Rule(), Rule(info_type=InfoType("34"))

    together = [
        rule.next_parts((), awaited=awaited, separately=False, turn=turn).text for rule in rules for turn in (0, 1)
    ]
    separately = [Rule().next_parts((), awaited=awaited, separately=True, turn=turn).text for turn in range(3)]

    assert (together, separately) == (["124", "124", "4", "4"], ["12", "14", "12"])


async def test_media_in_lines_of_base64_are_stored(idle_api: httpx.AsyncClient, retrieval: RetrievalServices) -> None:
    biz_token = await call_back(idle_api, "mime")
    assert await retrieve_all(retrieval) == 1

    assert await media(idle_api, biz_token) == media_of(biz_token)


async def test_address_instead_of_a_video_costs_only_the_video(
    idle_service: Running, idle_api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    clock, biz_token = ShiftedClock(), await call_back(idle_api, "address-x1-passed")
    async with retrieving(idle_service, clock) as retrieval:
        assert await retrieve_all(retrieval) == 1
        first = await get(idle_api, biz_token)
        identity = await idle_api.get(f"/v1/verifications/{biz_token}/identity", headers={"X-Purpose": "test"})
        row = await row_of(idle_service.services, biz_token)
        clock.ahead = timedelta(seconds=6)
        assert await retrieve_all(retrieval) == 1
        last = await get(idle_api, biz_token)

    assert (first["state"], first["outcome"], first["identity"]["name"]) == (
        "retrieved",
        "passed",
        last["identity"]["name"],
    )
    assert [item["kind"] for item in first["media"]] == ["id_card_front", "id_card_back", "best_frame"]
    assert first["unreadable_media"] == [{"kind": "liveness_video", "reason": "address"}]
    assert identity.json()["further"] == {"VideoData": {"LivenessVideo": address_of(biz_token)}}
    assert (row.priority, row.fetched_parts) == (Priority.LAST, frozenset())
    assert requested_info_types(faceid, biz_token) == ["0", "14"]
    assert (last["unreadable_media"], last["retrieval"]["due_at"]) == ([], None)
    assert await media(idle_api, biz_token) == media_of(biz_token)


@pytest.mark.parametrize("scenario", ["address", "novideo"])
async def test_media_item_that_stays_away_ends_absent(
    idle_service: Running, idle_api: httpx.AsyncClient, faceid: LiveSimulator, scenario: str
) -> None:
    clock, biz_token = ShiftedClock(), await call_back(idle_api, scenario)
    waits = []
    async with retrieving(idle_service, clock) as retrieval:
        while due_at := (await row_of(idle_service.services, biz_token)).due_at:
            waits.append(round((due_at - clock()).total_seconds()))
            clock.ahead += max(due_at - clock(), timedelta()) + timedelta(seconds=1)
            assert await retrieve_all(retrieval) == 1

    assert waits[:5] == [0, 5, 30, 300, 3600]
    assert 60 * 3600 < waits[5] < 69 * 3600
    seen = await get(idle_api, biz_token)
    assert requested_info_types(faceid, biz_token) == ["0", *["14"] * 5]
    assert (seen["state"], seen["outcome"], len(seen["media"])) == ("retrieved", "passed", 3)
    reasons = {"address": [{"kind": "liveness_video", "reason": "address"}], "novideo": []}
    assert seen["unreadable_media"] == reasons[scenario]


async def test_video_that_is_stored_late_is_fetched_after_seconds(
    idle_service: Running, idle_api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    clock, biz_token = ShiftedClock(), await call_back(idle_api, "novideo-x1-passed")
    async with retrieving(idle_service, clock, rules={"1": RuleSettings(text_first=True)}) as retrieval:
        assert [await retrieve_all(retrieval) for _ in range(2)] == [1, 1]
        clock.ahead = timedelta(seconds=6)
        await retrieve_all(retrieval)

    assert requested_info_types(faceid, biz_token) == ["1", "234"]
    assert await media(idle_api, biz_token) == media_of(biz_token)


async def test_medium_that_was_readable_is_kept_when_a_later_one_is_not(
    idle_service: Running, idle_api: httpx.AsyncClient, retrieval: RetrievalServices
) -> None:
    biz_token = await call_back(idle_api, "passed-x1-address")
    assert await retrieve_all(retrieval) == 1
    assert (await idle_api.post(f"/v1/verifications/{biz_token}/retrieve")).is_success
    assert await retrieve_all(retrieval) == 1

    row, seen = await row_of(idle_service.services, biz_token), await get(idle_api, biz_token)
    assert row.unreadable == (UnreadableMedia(MediaKind.LIVENESS_VIDEO, UnreadableReason.ADDRESS),)
    assert seen["unreadable_media"] == []
    assert await media(idle_api, biz_token) == media_of(biz_token)


async def test_media_are_not_awaited_after_their_retention(
    idle_service: Running, idle_api: httpx.AsyncClient, retrieval: RetrievalServices
) -> None:
    biz_token = await call_back(idle_api, "address")
    assert await retrieve_all(retrieval) == 1
    later = replace(idle_service.services.erase, clock=ShiftedClock(timedelta(days=31)))
    assert await later.erase_expired() == 1

    row = await row_of(idle_service.services, biz_token)
    assert (row.due_at, row.awaited_parts, row.unreadable) == (None, frozenset(), ())


async def test_malformed_values_cost_only_themselves(idle_service: Running, idle_api: httpx.AsyncClient) -> None:
    values = b'{"ErrCode":"0","Name":"\xe5\xbc\xa0\xe4\xb8","Sim":96.4,"New":1e400,"Newer":%b%b,"LiveStatus":0.0}'
    document = b'{"Text":%b,"IdCardData":[],"BestFrame":null,"VideoData":[]}' % (values % (b"[" * 60, b"]" * 60))
    quoted = document.replace(b'"', b'\\"')
    body = b'{"Response":{"Error":{"Code":null,"Message":null},"DetectInfo":"%b","RequestId":"r-1"}}' % quoted

    async with peer(saying(body)) as (url, _), retrieving(idle_service, faceid_endpoint=url) as retrieval:
        biz_token = await call_back(idle_api, "any")
        assert await retrieve_all(retrieval) == 1

    seen = await get(idle_api, biz_token)
    identity = await idle_api.get(f"/v1/verifications/{biz_token}/identity", headers={"X-Purpose": "test"})
    verdict = {name: seen["verdict"][name] for name in ("err_code", "live_status", "similarity")}
    assert (seen["state"], seen["outcome"], seen["media"], seen["unreadable_media"]) == ("retrieved", "passed", [], [])
    assert verdict == {"err_code": 0, "live_status": 0, "similarity": 96.4}
    assert (identity.json()["name"], identity.json()["further"]) == ("张\ufffd", {})


async def test_identifiers_of_tencent_are_bounded_before_they_are_stored_and_logged(
    idle_service: Running, idle_api: httpx.AsyncClient
) -> None:
    hostile = "\x1b[31m\r\n\u202e" + "x" * 5000
    body = json.dumps({"Response": {"Error": {"Code": hostile, "Message": hostile}, "RequestId": hostile}}).encode()

    async with peer(saying(body)) as (url, _), retrieving(idle_service, faceid_endpoint=url) as retrieval:
        biz_token = await call_back(idle_api, "any")
        with structlog.testing.capture_logs() as logs:
            assert await retrieve_all(retrieval) == 1

    kept = "?[31m???" + "x" * 56
    row, seen = await row_of(idle_service.services, biz_token), await get(idle_api, biz_token)
    assert (row.last_error_code, row.last_request_id) == (kept, kept)
    assert (seen["retrieval"]["last_error_code"], seen["retrieval"]["last_request_id"]) == (kept, kept)
    assert await calls(idle_service.services) == [kept]
    assert "x" * 57 not in repr(logs)
    assert "\\x1b" not in repr(logs)


async def test_id_card_is_not_awaited_in_a_flow_without_one(idle_service: Running, idle_api: httpx.AsyncClient) -> None:
    answers = iter(['{"ErrCode":0}', '{"ErrCode":0,"OcrName":"a"}', '{"ErrCode":2016,"OcrName":"a"}'])

    async def speak(writer: asyncio.StreamWriter) -> None:
        document = json.dumps(f'{{"Text":{next(answers)}}}')
        await saying(f'{{"Response":{{"DetectInfo":{document}}}}}'.encode())(writer)

    async with peer(speak) as (url, _):
        seen = []
        async with retrieving(idle_service, faceid_endpoint=url, faceid_info_type="12") as retrieval:
            for _ in range(3):
                biz_token = await call_back(idle_api, "any")
                assert await retrieve_all(retrieval) == 1
                seen.append((await row_of(idle_service.services, biz_token)).awaited_parts)

    assert seen == [frozenset(), {Part.ID_CARD}, frozenset()]


@pytest.mark.parametrize(
    ("scenario", "outcome", "status", "message"),
    [
        ("intention", "passed", 0, "成功"),
        ("intention-301", "failed", -301, "意愿核验不通过"),
        ("passed", "passed", None, None),
    ],
)
async def test_verdict_of_an_enhanced_rule_includes_the_intention(
    idle_service: Running,
    idle_api: httpx.AsyncClient,
    faceid: LiveSimulator,
    scenario: str,
    outcome: str,
    status: int | None,
    message: str | None,
) -> None:
    biz_token = await call_back(idle_api, scenario)
    async with retrieving(idle_service, rules={"1": RuleSettings(enhanced=True)}) as retrieval:
        assert await retrieve_all(retrieval) == 1

    seen, stored = await get(idle_api, biz_token), await media(idle_api, biz_token)
    verdict = seen["verdict"]
    identity = await idle_api.get(f"/v1/verifications/{biz_token}/identity", headers={"X-Purpose": "test"})
    assert (seen["outcome"], verdict["err_code"], verdict["intention_status"]) == (outcome, 0, status)
    assert verdict["intention_msg"] == message
    assert requested_info_types(faceid, biz_token) == ["123456"]
    video = media_of(biz_token)[MediaKind.LIVENESS_VIDEO]
    picture = picture_of(biz_token, "intention_picture_1")
    recorded = {MediaKind.INTENTION_VIDEO_1: video, MediaKind.INTENTION_PICTURE_1: picture}
    assert stored == media_of(biz_token) | (recorded if status is not None else {})
    said = identity.json()["further"].get("IntentionQuestionResult", {}).get("AsrResult")
    assert said == {0: ["同意"], -301: ["不同意"], None: None}[status]


async def test_enhanced_rule_stores_the_additional_media(idle_service: Running, idle_api: httpx.AsyncClient) -> None:
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
