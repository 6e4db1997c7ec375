"""Responses become our own values without loss, and only documented ones are accepted."""

import base64
import io
import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec
import pytest

from app.domain.detection import Detection, LivenessAttempt
from app.domain.media import MediaKind
from app.faceid.decode import decode_detect_info, decode_head
from app.faceid.lifter import Lifter
from app.faceid.payloads import DecodeError

MEDIUM = bytes(range(256)) * 8
BASE64 = base64.b64encode(MEDIUM).decode()


class Reading(NamedTuple):
    """Everything that is decoded from one response."""

    request_id: str | None = None
    error_code: str | None = None
    detection: Detection | None = None
    media: Mapping[MediaKind, io.BytesIO] = {}


def read(body: bytes, *, cuts: Callable[[], int] = lambda: 1000, threshold: int = 64) -> Reading:
    lifter = Lifter(io.BytesIO, threshold=threshold)
    while body:
        size = cuts()
        lifter.feed(body[:size])
        body = body[size:]
    lifted = lifter.finish()
    request_id, error_code = decode_head(lifted)
    return Reading(request_id, error_code) if error_code else Reading(request_id, None, *decode_detect_info(lifted))


def answer(info: object) -> bytes:
    return json.dumps({"Response": {"DetectInfo": json.dumps(info), "RequestId": "r-1"}}).encode()


def media(reading: Reading) -> dict[MediaKind, bytes]:
    return {kind: sink.getvalue() for kind, sink in reading.media.items()}


def detection(text: str) -> Detection:
    found = read(f'{{"Response":{{"DetectInfo":{json.dumps(f"""{{"Text":{text}}}""")}}}}}'.encode()).detection
    assert found is not None
    return found


# Absence and errors.


@pytest.mark.parametrize("absent", [{}, {"Text": None, "VideoData": None}, {"Text": "", "IdCardData": ""}])
def test_missing_null_or_empty_part_is_absent(absent: dict[str, object]) -> None:
    assert read(answer(absent)) == Reading("r-1")


def test_text_part_without_values_is_present() -> None:
    assert detection("{}") == Detection()


def test_media_without_content_are_absent() -> None:
    info = {"IdCardData": {"OcrFront": None, "OcrBack": ""}, "BestFrame": {}, "VideoData": {"LivenessVideo": "AAAA"}}

    assert media(read(answer(info))) == {MediaKind.LIVENESS_VIDEO: b"\0\0\0"}


@pytest.mark.parametrize("error", [{"Code": "InternalError", "Message": "内部错误。"}, {"Code": "InternalError"}])
@pytest.mark.parametrize("rest", [{}, {"DetectInfo": None}, {"DetectInfo": 5}, {"DetectInfo": "{"}, {"X": [1]}])
def test_error_is_read_whatever_comes_with_it(error: object, rest: dict[str, object]) -> None:
    body = json.dumps({"Response": {"Error": error, "RequestId": "r-2", **rest}}).encode()

    assert read(body) == Reading("r-2", "InternalError")


@pytest.mark.parametrize("request_id", ["", ',"RequestId":null', ',"RequestId":""'])
def test_response_without_request_id_is_read(request_id: str) -> None:
    assert read(f'{{"Response":{{"DetectInfo":"{{}}"{request_id}}}}}'.encode()).request_id is None


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad Gateway</html>",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"Response":null}',
        b'{"Response":{"RequestId":5,"DetectInfo":"{}"}}',
        b'{"Response":{"Error":"no"}}',
        b'{"Response":{"Error":{"Message":"no code"}}}',
        b'{"Response":{"Error":{"Code":""}}}',
        b'{"Response":{"DetectInfo":"{}"}',
        b'{"Response":{"DetectInfo":"{}"}}{}',
        b'{"Response":{"DetectInfo":null}}',
        b'{"Response":{"DetectInfo":""}}',
        b'{"Response":{"DetectInfo":"null"}}',
        b'{"Response":{"DetectInfo":"{"}}',
        b'{"Response":{"DetectInfo":"[]"}}',
        b'{"Response":{"DetectInfo":5}}',
        b'{"Response":{"DetectInfo":{"Text":"secret"}}}',
        b'{"Response":{"DetectInfo":{"Text":[]}}}',
        b'{"Response":{"DetectInfo":{"Text":{"New":"\xff"}}}}',
        b'{"Response":{"DetectInfo":{"Text":{"New":1e999}}}}',
        b'{"Response":{"DetectInfo":{"VideoData":{"LivenessVideo":5}}}}',
        b'{"Response":{"DetectInfo":{"BestFrame":"AAAA"}}}',
        *(
            pytest.param(template.replace("DEEP", DEEP).encode(), id=f"depth bomb {n}")
            for n, template in enumerate(
                [
                    "DEEP",
                    '{"Response":{"X":DEEP}}',
                    '{"Response":{"DetectInfo":DEEP}}',
                    '{"Response":{"DetectInfo":"DEEP"}}',
                    '{"Response":{"DetectInfo":{"Text":{"X":DEEP}}}}',
                    '{"Response":{"DetectInfo":"{\\"Text\\":{\\"Detail\\":DEEP}}"}}',
                ]
            )
        ),
    ],
)
def test_undocumented_response_is_an_error_that_quotes_nothing(body: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        read(body)

    assert str(caught.value) == "the answer is not what Tencent documents"
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("response", [{}, {"RequestId": "r"}, {"IsVerifyIntention": False, "RequestId": "r"}])
def test_response_without_any_part_is_an_error(response: dict[str, object]) -> None:
    with pytest.raises(DecodeError, match="no part of a result"):
        read(json.dumps({"Response": response}).encode())


# The text.


def test_documented_example_is_read_in_full() -> None:
    attempt = {
        "ErrCode": 0,
        "ErrMsg": "成功",
        "ReqTime": "1715327563289",
        "IdCard": "000000199505130012",
        "Name": "张三",
    }
    text = {"ErrCode": 0, "ErrMsg": "成功", "IdCard": "000000199505130012", "Name": "张三", "Sim": "96.42"}
    text |= {"OcrNation": "汉", "OcrBirth": "1995/5/13", "OcrValidDate": "2019.06.13-长期", "OcrAddress": None}
    text |= {
        "LiveStatus": 0,
        "LiveMsg": "成功",
        "Comparestatus": 0,
        "Comparemsg": "成功",
        "Extra": "",
        "Location": None,
    }

    assert detection(json.dumps(text | {"Detail": {"LivenessData": [attempt, {"ErrCode": None}]}})) == Detection(
        err_code=0,
        err_msg="成功",
        id_card="000000199505130012",
        name="张三",
        ocr_nation="汉",
        ocr_birth="1995/5/13",
        ocr_valid_date="2019.06.13-长期",
        live_status=0,
        live_msg="成功",
        compare_status=0,
        compare_msg="成功",
        sim="96.42",
        liveness_attempts=(
            LivenessAttempt(
                err_code=0, err_msg="成功", req_time="1715327563289", id_card="000000199505130012", name="张三"
            ),
            LivenessAttempt(),
        ),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"ErrCode":"17"}', Detection(err_code=17)),
        ('{"LiveStatus":"-1"}', Detection(live_status=-1)),
        ('{"ErrCode":null,"LiveStatus":""}', Detection()),
        ('{"Sim":96.40}', Detection(sim="96.40")),
        ('{"IdCard":110101199505130012345678901234567890}', Detection(id_card="110101199505130012345678901234567890")),
        ('{"Sim":-1e999}', Detection(sim="-1e999")),
        ('{"LiveStatus":true}', Detection(further={"LiveStatus": True})),
        ('{"LiveStatus":1.0}', Detection(further={"LiveStatus": 1.0})),
        ('{"LiveStatus":"no","Comparestatus":{}}', Detection(further={"LiveStatus": "no", "Comparestatus": {}})),
        ('{"LiveStatus":12345678901}', Detection(further={"LiveStatus": 12345678901})),
        ('{"Name":true,"Extra":[1]}', Detection(further={"Name": True, "Extra": [1]})),
        (
            '{"New":null,"Newer":"","Newest":{"a":[0.5]}}',
            Detection(further=json.loads('{"New":null,"Newer":"","Newest":{"a":[0.5]}}')),
        ),
        ('{"Detail":null}', Detection()),
        ('{"Detail":{}}', Detection()),
        ('{"Detail":{"LivenessData":null}}', Detection()),
        ('{"Detail":{"LivenessData":[],"New":null}}', Detection(further={"Detail": {"New": None}})),
        ('{"Detail":"none"}', Detection(further={"Detail": "none"})),
        ('{"Detail":{"LivenessData":{"a":1}}}', Detection(further={"Detail": {"LivenessData": {"a": 1}}})),
        ('{"Detail":{"LivenessData":[{},3]}}', Detection(further={"Detail": {"LivenessData": [{}, 3]}})),
        (
            '{"Detail":{"New":1,"LivenessData":[{"ErrCode":"x","ReqTime":1715327563289,"Seq":null}]}}',
            Detection(
                further={"Detail": {"New": 1}},
                liveness_attempts=(LivenessAttempt(req_time="1715327563289", further={"ErrCode": "x", "Seq": None}),),
            ),
        ),
    ],
)
def test_values_that_fit_no_field_are_kept(text: str, expected: Detection) -> None:
    assert detection(text) == expected


@pytest.mark.parametrize("code", ["true", "0.0", "1e3", '"passed"', "[]", "{}", "12345678901", '" "'])
def test_verdict_that_is_not_a_number_is_an_error(code: str) -> None:
    with pytest.raises(DecodeError, match=r"^Text\.ErrCode is not a number$"):
        detection(f'{{"ErrCode":{code}}}')


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize(
    ("spelling", "stored"),
    [
        (r"a\u0000b", "a\ufffdb"),
        (r"\ud83d", "\ufffd"),
        (r"\uDE00\ud83dx", "\ufffd\ufffdx"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\\u0000", r"\u0000"),
        (r"\\\u0000\"", '\\\ufffd"'),
    ],
)
def test_characters_that_no_database_accepts_are_replaced(spelling: str, stored: str, levels: int) -> None:
    text = '{"Name":"?","New":{"?":["?"]},"Detail":{"LivenessData":[{"X":"?"}]}}'.replace("?", spelling)
    info = f'{{"Text":{text}}}'
    body = f'{{"Response":{{"DetectInfo":{json.dumps(info) if levels == 2 else info}}}}}'

    found = read(body.encode()).detection

    attempt = LivenessAttempt(further={"X": stored})
    assert found == Detection(name=stored, further={"New": {stored: [stored]}}, liveness_attempts=(attempt,))
    assert msgspec.json.decode(msgspec.json.encode(found.further)) == found.further


def test_characters_that_no_database_accepts_are_replaced_in_errors() -> None:
    body = rb'{"Response":{"Error":{"Code":"a\u0000","Message":"\ud800"},"RequestId":"\u0000"}}'

    assert read(body) == Reading("\ufffd", "a\ufffd")


# The media.


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


@pytest.mark.parametrize("text", ["AAA", "AA==AAAA", "AAAA=", "AA\nA", "A-_A", "AAAA ", "é===", '"', "AAAA" * 99 + '"'])
def test_medium_that_is_not_strict_base64_is_an_error_that_quotes_nothing(text: str) -> None:
    with pytest.raises(DecodeError, match=r"^a media item is not strict base64$"):
        read(answer({"VideoData": {"LivenessVideo": text}}))


@pytest.mark.parametrize(
    "text",
    [
        {"BestFrame": BASE64},
        {"New": [{"OcrFront": BASE64}]},
        {"BestFrames": [BASE64]},
        {"LivenessDetail": [{"Avatar": BASE64}]},
        {f'New"Avatar":"{BASE64}"': 1},
    ],
)
def test_reference_in_text_is_an_error(text: dict[str, object]) -> None:
    with pytest.raises(DecodeError, match="there is a media item in Text"):
        read(json.dumps({"Response": {"Text": text}}).encode())


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (None, []),
        ("", []),
        ([], []),
        ([BASE64], ["best_frame_1"]),
        ([None, BASE64, "", BASE64], ["best_frame_2", "best_frame_4"]),
        (["AAAA", BASE64, None, BASE64], ["best_frame_1", "best_frame_2", "best_frame_4"]),
        ([BASE64] * 12, [f"best_frame_{number}" for number in range(1, 11)]),
    ],
)
def test_further_frames_keep_their_numbers_up_to_ten(frames: object, expected: list[str]) -> None:
    found = media(read(answer({"BestFrame": {"BestFrames": frames}})))

    assert list(found) == expected
    assert set(found.values()) <= {MEDIUM, b"\0\0\0"}


@pytest.mark.parametrize("frames", [BASE64, {"1": BASE64}, [5], [[BASE64]], ["?"]])
def test_further_frames_that_are_not_base64_are_an_error(frames: object) -> None:
    with pytest.raises(DecodeError):
        read(answer({"BestFrame": {"BestFrames": frames}}))


# Unmapped fields outside the text.


@pytest.mark.parametrize(
    ("others", "further"),
    [
        ({"IdCardData": {"WarnInfos": [-9103], "BackWarnInfos": None}}, {"IdCardData": {"WarnInfos": [-9103]}}),
        (
            {"VideoData": {"LivenessVideos": [{"Seq": "1", "Video": "bucket/1.mp4"}]}},
            {"VideoData": {"LivenessVideos": [{"Seq": "1", "Video": "bucket/1.mp4"}]}},
        ),
        ({"IsVerifyIntention": False, "BucketName": ""}, {"IsVerifyIntention": False}),
        ({"IntentionQuestionResult": {"AsrResult": [], "Video": None}, "EncryptedBody": ""}, {}),
        ({"Encryption": {"TagList": [""], "Iv": {}}}, {}),
        ({"IdCardData": {"OcrFront": BASE64, "Avatar": "AAAA"}, "BestFrame": {"BestFrames": [BASE64]}}, {}),
        # Never a media item, wherever it is, nor the reference to one.
        ({"IdCardData": {"NewImage": "A" * 4096, "WarnInfos": [1]}}, {"IdCardData": {"WarnInfos": [1]}}),
        ({"VideoData": {"LivenessVideos": [{"Video": "A" * 4096}]}}, {}),
        ({"IntentionVerifyData": {"IntentionVerifyVideo": "A" * 4096, "ErrorCode": 0}}, {}),
        ({"IntentionVerifyData": {"BestFrame": BASE64}, "New": 1}, {"New": 1}),
        ({"BestFrame": {"New": {"BestFrames": [BASE64]}}}, {}),
    ],
)
@pytest.mark.parametrize("enhanced", [True, False])
def test_unmapped_fields_are_kept_except_media(
    others: dict[str, object], further: dict[str, object], enhanced: bool
) -> None:
    info = {"Text": {"ErrCode": 0, "Mobile": None}} | others
    body = json.dumps({"Response": info | {"RequestId": "r-1"}}).encode() if enhanced else answer(info)

    assert read(body).detection == Detection(err_code=0, further={"Mobile": None} | further)


def test_field_whose_name_contained_a_medium_is_dropped() -> None:
    body = json.dumps({"Response": {"Text": {}, f'New"Avatar":"{BASE64}"': 1}}).encode()

    assert read(body).detection == Detection()


def test_unmapped_field_nested_too_deeply_is_an_error() -> None:
    with pytest.raises(DecodeError, match="nested too deeply"):
        read(answer({"Text": {}, "New": json.loads("[" * 40 + "]" * 40)}))


def test_unmapped_fields_without_a_text_part_are_dropped() -> None:
    assert read(answer({"IdCardData": {"WarnInfos": [-9103]}})) == Reading("r-1")


def test_attempt_with_both_spellings_loses_nothing() -> None:
    text = '{"LivenessDetail":[{"ErrCode":1,"Errcode":2,"Seq":"s","Livestatus":0}],"Detail":{"LivenessData":[{}]}}'

    assert detection(text).liveness_attempts == (
        LivenessAttempt(),
        LivenessAttempt(err_code=1, further={"Errcode": 2, "Seq": "s", "Livestatus": 0}),
    )


def test_personal_data_is_absent_from_repr() -> None:
    shown = repr(read(answer({"Text": {"ErrCode": 0, "Name": "张三", "New": "张三"}})))

    assert "张三" not in shown
