"""Media are read in every spelling, and one that cannot be read costs only itself."""

import json

import pytest

from app.domain.detection import Detection, LivenessAttempt
from app.domain.media import MediaKind
from app.faceid.payloads import OversizedError
from tests.support.decoding import BASE64, MEDIUM, answer, media, read


@pytest.mark.parametrize(
    "body",
    [
        answer({"BestFrame": {"BestFrame": BASE64}}),
        answer({"BestFrame": {"BestFrame": BASE64}}).replace(b'\\"', b"\\u0022"),
        answer({"BestFrame": {"BestFrame": BASE64}}).replace(b"BestFrame", rb"Best\\u0046rame"),
        rb'{"Response":{"DetectInfo":{"BestFrame":{"BestFrame":"AA\/\u002f","BestFrame":"%s"}}}}' % BASE64.encode(),
        rb'{"Response":{"DetectInfo":{"BestFrame":{"BestFrame":"%s","BestFrame":"%s"}}}}' % ((BASE64.encode(),) * 2),
    ],
)
def test_medium_is_read_however_its_name_is_spelled(body: bytes) -> None:
    assert media(read(body)) == {MediaKind.BEST_FRAME: MEDIUM}


ADDRESS = "https://bucket-1250000000.cos.ap-guangzhou.myqcloud.com/video/1.mp4?sign=a%20b"
GOOD = {MediaKind.ID_CARD_FRONT: MEDIUM, MediaKind.BEST_FRAME: MEDIUM}


@pytest.mark.parametrize(
    ("value", "reason", "further"),
    [
        *(
            (text, "not_base64", {})
            for text in ("AAAAA", "AA==AAAA", "AAAA=", "AAAA ", "é===", '"', "AAAA" * 2000 + "?")
        ),
        (ADDRESS, "address", {"VideoData": {"LivenessVideo": ADDRESS}}),
        (5, "not_text", {"VideoData": {"LivenessVideo": 5}}),
        (False, "not_text", {"VideoData": {"LivenessVideo": False}}),
        ([BASE64 * 2], "not_text", {}),
        ({"Url": ADDRESS}, "not_text", {"VideoData": {"LivenessVideo": {"Url": ADDRESS}}}),
    ],
)
def test_media_item_that_cannot_be_read_costs_only_itself(
    value: object, reason: str, further: dict[str, object]
) -> None:
    info = {
        "IdCardData": {"OcrFront": BASE64},
        "VideoData": {"LivenessVideo": value},
        "BestFrame": {"BestFrame": BASE64},
    }
    found = read(answer({"Text": {"ErrCode": 0}} | info), threshold=4096)

    assert found.detection == Detection(err_code=0, further=further)
    assert (media(found), found.unreadable) == (GOOD, {MediaKind.LIVENESS_VIDEO: reason})


@pytest.mark.parametrize(
    ("part", "further"),
    [(ADDRESS, {"VideoData": {"LivenessVideo": ADDRESS}}), (5, {"VideoData": {"LivenessVideo": 5}}), (["?"], {})],
)
def test_part_that_is_no_object_costs_only_its_media(part: object, further: dict[str, object]) -> None:
    found = read(answer({"Text": {"ErrCode": 0}, "VideoData": part, "BestFrame": {"BestFrame": BASE64}}))

    assert found.detection == Detection(err_code=0, further=further or {"VideoData": {"LivenessVideo": ["?"]}})
    assert media(found) == {MediaKind.BEST_FRAME: MEDIUM}
    assert list(found.unreadable) == [MediaKind.LIVENESS_VIDEO]


@pytest.mark.parametrize("part", ["BestFrame", "VideoData"])
def test_part_that_is_the_media_item_itself_is_read(part: str) -> None:
    assert list(media(read(answer({part: BASE64}))).values()) == [MEDIUM]


@pytest.mark.parametrize("text", ["AAA", "AA\nA=", "A-_A", "data:image/png;base64,AAAA"])
def test_short_media_item_in_a_variant_of_base64_is_read(text: str) -> None:
    assert len(media(read(answer({"VideoData": {"LivenessVideo": text}})))) == 1


@pytest.mark.parametrize(
    ("text", "further"),
    [
        ({"BestFrame": BASE64}, {"BestFrame": ""}),
        ({"New": [{"OcrFront": BASE64}]}, {"New": [{"OcrFront": ""}]}),
        ({"BestFrames": [BASE64]}, {"BestFrames": [""]}),
        ({f'New"Avatar":"{BASE64}"': 1}, {'New"Avatar":""': 1}),
    ],
)
def test_media_item_in_text_leaves_an_empty_text(text: dict[str, object], further: dict[str, object]) -> None:
    found = read(json.dumps({"Response": {"Text": {"ErrCode": 0} | text}}).encode()).detection

    assert found == Detection(err_code=0, further=further)
    assert json.loads(found.document or "") == {"ErrCode": 0} | further


def test_media_item_in_an_attempt_leaves_an_empty_text() -> None:
    text = {"LivenessDetail": [{"Avatar": BASE64, "Name": "a"}]}

    found = read(json.dumps({"Response": {"Text": text}}).encode()).detection

    assert found == Detection(liveness_attempts=(LivenessAttempt(name="a", further={"Avatar": ""}),))


@pytest.mark.parametrize("name", ["Detail", "LivenessDetail"])
@pytest.mark.parametrize(("count", "is_read"), [(256, True), (257, False), (3_000, False)])
def test_more_attempts_than_any_person_makes_are_an_error(name: str, count: int, is_read: bool) -> None:
    attempts: list[dict[str, object]] = [{}] * count
    body = answer({"Text": {name: {"LivenessData": attempts} if name == "Detail" else attempts}})

    if is_read:
        assert len((read(body).detection or Detection()).liveness_attempts) == count
    else:
        with pytest.raises(OversizedError, match="too many attempts"):
            read(body)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (None, []),
        ("", []),
        ([], []),
        ([BASE64], ["best_frame_1"]),
        ([None, BASE64, "", BASE64], ["best_frame_2", "best_frame_4"]),
        (["AAAA", BASE64, None, BASE64], ["best_frame_1", "best_frame_2", "best_frame_4"]),
        ({"0": BASE64, "2": BASE64}, ["best_frame_1", "best_frame_2"]),
        (BASE64, ["best_frame_1"]),
        ([BASE64] * 12, [f"best_frame_{number}" for number in range(1, 11)]),
    ],
)
def test_further_frames_keep_their_numbers_up_to_ten(frames: object, expected: list[str]) -> None:
    found = media(read(answer({"BestFrame": {"BestFrames": frames}})))

    assert list(found) == expected
    assert set(found.values()) <= {MEDIUM, b"\0\0\0"}


@pytest.mark.parametrize(
    ("frames", "read_ones", "broken", "further"),
    [
        ([BASE64, 5, BASE64], [1, 3], {2: "not_text"}, {"BestFrame": {"BestFrames": [5]}}),
        ([BASE64, "?"], [1], {2: "not_base64"}, {}),
        ([ADDRESS, ADDRESS], [], {1: "address", 2: "address"}, {"BestFrame": {"BestFrames": [ADDRESS, ADDRESS]}}),
        ({"a": BASE64 * 2}, [], {1: "not_text"}, {}),
        (5, [], {1: "not_text"}, {"BestFrame": {"BestFrames": 5}}),
    ],
)
def test_frame_that_cannot_be_read_costs_only_itself(
    frames: object, read_ones: list[int], broken: dict[int, str], further: dict[str, object]
) -> None:
    found = read(answer({"Text": {}, "BestFrame": {"BestFrames": frames}}), threshold=4096)

    assert list(media(found)) == [f"best_frame_{number}" for number in read_ones]
    assert found.unreadable == {MediaKind(f"best_frame_{number}"): reason for number, reason in broken.items()}
    assert found.detection == Detection(further=further)
