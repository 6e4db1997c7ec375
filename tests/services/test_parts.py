"""The parts of a result: in which order they are requested, and that a bad or lacking one costs only itself."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import structlog

from app.domain.detection import InfoType, Part
from app.domain.media import MediaKind, UnreadableMedia, UnreadableReason
from app.domain.rule import Rule
from app.domain.verification import Priority
from app.faceid.error_codes import TOO_LARGE
from app.factory import RetrievalServices
from app.services.rule_settings import RuleSettings
from simulator.answers import address_of
from simulator.media import media_of, picture_of
from tests.support.api import call_back, get, row_of
from tests.support.clocks import FixedClock, ShiftedClock
from tests.support.service import Running
from tests.support.simulator import LiveSimulator
from tests.support.stored import calls, counts, media
from tests.support.tencent import peer, saying, unresponsive
from tests.support.worker import retrieve_all, retrieve_later, retrieving, with_clock


@pytest.fixture
async def retrieval(idle_service: Running) -> AsyncIterator[RetrievalServices]:
    async with retrieving(idle_service) as opened:
        yield opened


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
        ("latency-9000-x3", ["0", "0", "0", "1"]),
        ("http502-x2-latency-9000-x1", ["0", "0", "0", "0"]),
        ("http502-x1-latency-9000-x2", ["0", "0", "0", "1"]),
    ],
)
async def test_only_timeouts_in_a_row_show_that_the_whole_is_too_large(
    idle_service: Running, idle_api: httpx.AsyncClient, faceid: LiveSimulator, scenario: str, info_types: list[str]
) -> None:
    clock, biz_token = ShiftedClock(), await call_back(idle_api, scenario)
    async with retrieving(idle_service, clock, faceid_timeout_seconds=2) as retrieval:
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


async def test_unreadable_video_shows_that_the_person_is_finished(
    idle_service: Running, idle_api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    clock, biz_token = ShiftedClock(), await call_back(idle_api, "address-x1-passed")
    async with retrieving(idle_service, clock, faceid_info_type="4") as retrieval:
        assert await retrieve_all(retrieval) == 1
        first = await get(idle_api, biz_token)
        clock.ahead = timedelta(seconds=6)
        assert await retrieve_all(retrieval) == 1

    assert (first["state"], first["outcome"], len(first["unreadable_media"])) == ("retrieved", None, 1)
    assert requested_info_types(faceid, biz_token) == ["4", "4"]
    assert list(await media(idle_api, biz_token)) == [MediaKind.LIVENESS_VIDEO]


@pytest.mark.parametrize("scenario", ["address", "novideo"])
async def test_media_item_that_stays_away_ends_absent(
    idle_service: Running, idle_api: httpx.AsyncClient, faceid: LiveSimulator, scenario: str
) -> None:
    biz_token, waits = await call_back(idle_api, scenario), []
    clock = FixedClock(datetime.now(UTC))
    async with retrieving(idle_service, clock) as retrieval:
        while (row := await row_of(idle_service.services, biz_token)).due_at:
            waits.append(round((row.due_at - (row.retrieved_at or row.due_at)).total_seconds()))
            clock.now = max(row.due_at, clock.now) + timedelta(seconds=1)
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
    assert await retrieve_later(idle_service, 11) == 1

    row, seen = await row_of(idle_service.services, biz_token), await get(idle_api, biz_token)
    assert row.unreadable == (UnreadableMedia(MediaKind.LIVENESS_VIDEO, UnreadableReason.ADDRESS),)
    assert seen["unreadable_media"] == []
    assert await media(idle_api, biz_token) == media_of(biz_token)


async def test_media_are_not_awaited_after_their_retention(
    idle_service: Running, idle_api: httpx.AsyncClient, retrieval: RetrievalServices
) -> None:
    biz_token = await call_back(idle_api, "address")
    assert await retrieve_all(retrieval) == 1
    later = with_clock(idle_service.services, ShiftedClock(timedelta(days=31)))
    assert await replace(later.erase, clocks=later.clocks).erase_expired() == 1

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
