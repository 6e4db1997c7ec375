"""ErrCode says nothing about the intention: who had to confirm one passes only if its result says so."""

import base64
import json
from collections.abc import Mapping

import pytest

from app.domain.detection import Outcome
from app.domain.media import MediaKind, UnreadableReason
from tests.support.decoding import Reading, media, read

BYTES = bytes(range(256)) * 20
BASE64 = base64.b64encode(BYTES).decode()
PASSED, FAILED, UNFINISHED = Outcome.PASSED, Outcome.FAILED, Outcome.UNFINISHED


def answer(err_code: object = 0, **others: object) -> Reading:
    response = {"Text": {"ErrCode": err_code}, "IsVerifyIntention": True, "RequestId": "r-1"} | others
    return read(json.dumps({"Response": response}).encode(), threshold=4096)


def verdict(reading: Reading) -> tuple[Outcome, int | None]:
    assert reading.detection is not None
    return reading.detection.outcome, reading.detection.intention_status


def questions(**fields: object) -> dict[str, object]:
    return {"IntentionVerifyType": "0", "IntentionQuestionResult": fields}


def reading_aloud(**fields: object) -> dict[str, object]:
    return {"IntentionVerifyType": "2", "IntentionVerifyData": fields}


@pytest.mark.parametrize(
    ("others", "outcome", "status"),
    [
        ({}, UNFINISHED, None),
        (questions(), UNFINISHED, None),
        (questions(FinalResultDetailCode=None, FinalResultCode=None), UNFINISHED, None),
        (questions(FinalResultDetailCode=0, FinalResultCode="0"), PASSED, 0),
        (questions(FinalResultDetailCode="0"), PASSED, 0),
        (questions(FinalResultCode="0"), PASSED, 0),
        (questions(FinalResultDetailCode=-301, FinalResultCode="-1"), FAILED, -301),
        (questions(FinalResultCode="-2"), FAILED, -2),
        (questions(FinalResultDetailCode=0, FinalResultCode="-1"), FAILED, -1),
        (questions(FinalResultDetailCode=True), UNFINISHED, None),
        (questions(FinalResultDetailCode=0, FinalResultCode="ok"), UNFINISHED, None),
        ({"IntentionVerifyType": "1", "IntentionActionResult": {"FinalResultDetailCode": 0}}, PASSED, 0),
        ({"IntentionVerifyType": 1, "IntentionActionResult": {"FinalResultDetailCode": -107}}, FAILED, -107),
        (reading_aloud(ErrorCode=0), PASSED, 0),
        (reading_aloud(ErrorCode=3011), FAILED, 3011),
        # The result of another mode than the one of the flow.
        ({"IntentionVerifyType": "2", "IntentionQuestionResult": {"FinalResultDetailCode": 0}}, UNFINISHED, None),
        # Without the mode, every result that exists counts.
        ({"IntentionQuestionResult": {"FinalResultDetailCode": 0}}, PASSED, 0),
        (
            {"IntentionQuestionResult": {"FinalResultDetailCode": 0}, "IntentionVerifyData": {"ErrorCode": -17}},
            FAILED,
            -17,
        ),
        ({"IntentionVerifyType": "3", "IntentionActionResult": []}, UNFINISHED, None),
        # Flows without an intention.
        ({"IsVerifyIntention": False}, PASSED, None),
        ({"IsVerifyIntention": "false", "IntentionQuestionResult": {"FinalResultDetailCode": -301}}, PASSED, None),
        ({"IsVerifyIntention": None}, PASSED, None),
        ({"IsVerifyIntention": None, "IntentionQuestionResult": {"FinalResultDetailCode": -301}}, FAILED, -301),
        ({"IsVerifyIntention": "soon"}, UNFINISHED, None),
        ({"IsVerifyIntention": 1}, UNFINISHED, None),
    ],
)
def test_person_passes_only_with_a_confirmed_intention(
    others: dict[str, object], outcome: Outcome, status: int | None
) -> None:
    assert verdict(answer(**others)) == (outcome, status)


@pytest.mark.parametrize(
    ("err_code", "outcome"), [(None, UNFINISHED), (17, UNFINISHED), (2016, FAILED), (True, UNFINISHED)]
)
@pytest.mark.parametrize("status", [0, -301, None])
def test_intention_never_improves_the_verdict_of_the_face(
    err_code: object, outcome: Outcome, status: int | None
) -> None:
    assert verdict(answer(err_code, **questions(FinalResultDetailCode=status))) == (outcome, status)


@pytest.mark.parametrize(
    ("others", "kinds"),
    [
        (
            {
                "IntentionVerifyData": {
                    "IntentionVerifyVideo": BASE64,
                    "IntentionVerifyBestFrame": BASE64,
                    "IntentionVerifyAudio": BASE64,
                    "AsrResult": "a",
                }
            },
            ["intention_video_1", "intention_picture_1", "intention_audio_1"],
        ),
        (
            {
                "IntentionQuestionResult": {
                    "Video": BASE64,
                    "ScreenShot": [BASE64, BASE64],
                    "Audios": [BASE64, None, BASE64],
                    "AsrResult": ["a"],
                }
            },
            [
                "intention_video_1",
                "intention_picture_1",
                "intention_picture_2",
                "intention_audio_1",
                "intention_audio_3",
            ],
        ),
        (
            {
                "IntentionActionResult": {
                    "Details": [{"Video": BASE64, "ScreenShot": [BASE64]}, {"Video": BASE64, "ScreenShot": None}],
                    "AsrResult": "a",
                }
            },
            ["intention_video_1", "intention_video_2", "intention_picture_1"],
        ),
    ],
)
def test_recordings_of_the_intention_are_media_and_the_texts_are_kept(
    others: Mapping[str, Mapping[str, object]], kinds: list[str]
) -> None:
    found = answer(**others)

    assert media(found) == dict.fromkeys(map(MediaKind, kinds), BYTES)
    ((name, fields),) = others.items()
    assert found.detection is not None
    assert found.detection.further == {"IsVerifyIntention": True, name: {"AsrResult": fields["AsrResult"]}}


def test_unreadable_recording_costs_only_itself() -> None:
    found = answer(**questions(FinalResultDetailCode=0, Video="?" * 5000, ScreenShot=[BASE64]))

    assert verdict(found) == (PASSED, 0)
    assert media(found) == {MediaKind.INTENTION_PICTURE_1: BYTES}
    assert found.unreadable == {MediaKind.INTENTION_VIDEO_1: UnreadableReason.NOT_BASE64}


@pytest.mark.parametrize("details", [None, [], "none", [5], {"a": 1}])
def test_rounds_of_another_type_cost_only_themselves(details: object) -> None:
    found = answer(IntentionVerifyType="1", IntentionActionResult={"FinalResultDetailCode": 0, "Details": details})

    assert (verdict(found), media(found)) == ((PASSED, 0), {})
