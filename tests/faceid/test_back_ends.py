"""Values of every type, as PHP, Java and Go back ends send them instead of the documented one, cost only themselves."""

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from app.domain.detection import Outcome
from app.domain.media import MediaKind
from tests.support.decoding import BASE64, Reading, media, read

FOREIGN = [
    *(
        "null",
        '""',
        "[]",
        "{}",
        "[ ]",
        "0",
        "0.0",
        "-0",
        "1.5",
        "1E2",
        "12345678901234567890",
        "1e400",
        "true",
        "false",
    ),
    *(
        '"0"',
        '"1.0"',
        '"null"',
        '"a"',
        '" "',
        "[1]",
        "[null]",
        '[""]',
        '{"a":1}',
        '{"0":{"Name":"x"}}',
        "[" * 60 + "]" * 60,
    ),
    *('"\\\\u0000"', '"\\\\ud83d"', f'"{"x" * 9000}"'),
]
GOOD_TEXT = {
    **dict.fromkeys(("ErrCode", "LiveStatus", "Comparestatus"), "0"),
    **{name: f'"{name}"' for name in ("ErrMsg", "IdCard", "Name", "OcrName", "LiveMsg", "Comparemsg", "Sim", "Extra")},
    "Detail": '{"LivenessData":[{"ErrCode":0,"Name":"a"}]}',
}
GOOD_PARTS = {
    "IdCardData": f'{{"OcrFront":"{BASE64}"}}',
    "BestFrame": f'{{"BestFrame":"{BASE64}","BestFrames":["{BASE64}"]}}',
    "VideoData": f'{{"LivenessVideo":"{BASE64}"}}',
}


def members(values: Mapping[str, str]) -> str:
    return "{" + ",".join(f'"{name}":{value}' for name, value in values.items()) + "}"


def whole(
    text: Mapping[str, str] = GOOD_TEXT,
    parts: Mapping[str, str] = GOOD_PARTS,
    others: Mapping[str, str] = MappingProxyType({}),
) -> Reading:
    response = {"RequestId": '"r-1"', "Text": members(text), **parts, **others}
    return read(f'{{"Response":{members(response)}}}'.encode())


@pytest.mark.parametrize("name", [*GOOD_TEXT, "LivenessDetail", "Mobile"])
def test_value_of_any_back_end_costs_only_its_field_of_the_text(name: str) -> None:
    changed = {"Detail": "liveness_attempts", "LivenessDetail": "liveness_attempts", "Mobile": "further"}
    changed |= {"ErrCode": "err_code", "LiveStatus": "live_status", "Comparestatus": "compare_status"}
    field = changed.get(name) or {"LiveMsg": "live_msg", "Comparemsg": "compare_msg"}.get(name) or snake(name)
    expected = whole()
    assert expected.detection is not None
    for value in FOREIGN:
        found = whole(GOOD_TEXT | {name: value})

        assert found.detection is not None, value
        kept = {field: getattr(expected.detection, field), "further": expected.detection.further}
        assert replace(found.detection, **kept) == expected.detection, value
        assert media(found) == media(expected), value
        is_zero = name != "ErrCode" or value in {"0", "0.0", "-0", '"0"'}
        assert (found.detection.outcome is Outcome.PASSED) == is_zero, value


def snake(name: str) -> str:
    return re.sub("(?<!^)(?=[A-Z])", "_", name).lower()


@pytest.mark.parametrize("name", [*GOOD_PARTS, "New", "IsVerifyIntention", "IntentionQuestionResult", "Encryption"])
def test_value_of_any_back_end_costs_only_its_part(name: str) -> None:
    expected = whole()
    assert expected.detection is not None
    for value in FOREIGN:
        found = whole(others={name: value})

        lost = {kind for kind in expected.media if name in GOOD_PARTS and kind in KINDS[name]}
        assert found.media.keys() - lost >= expected.media.keys() - lost, value
        assert found.detection is not None, value
        kept: dict[str, Any] = {"further": {}, "is_intention_required": False, "intention_status": None}
        assert replace(found.detection, **kept) == expected.detection, value


KINDS = {
    "IdCardData": {MediaKind.ID_CARD_FRONT},
    "BestFrame": {MediaKind.BEST_FRAME, MediaKind.BEST_FRAME_1},
    "VideoData": {MediaKind.LIVENESS_VIDEO},
}


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("IdCardData", "OcrFront"),
        ("BestFrame", "BestFrame"),
        ("BestFrame", "BestFrames"),
        ("VideoData", "LivenessVideo"),
    ],
)
def test_value_of_any_back_end_costs_only_its_media_item(part: str, name: str) -> None:
    for value in FOREIGN:
        found = whole(parts=GOOD_PARTS | {part: f'{{"{name}":{value}}}'})

        assert found.detection is not None, value
        assert replace(found.detection, further={}) == whole().detection, value
        assert found.media.keys() >= whole().media.keys() - KINDS[part], value


@pytest.mark.parametrize("value", [value for value in FOREIGN if value not in {'"a"', '"0"', '"1.0"', '"null"'}])
def test_request_id_of_any_back_end_costs_only_itself(value: str) -> None:
    found = whole(others={"RequestId": value})

    assert (found.error_code, found.detection) == (None, whole().detection)
    assert len(found.request_id or "") <= 64
