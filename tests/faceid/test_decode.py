"""Responses become our own values without loss, and only documented ones are accepted."""

import json

import msgspec
import pytest

from app.domain.detection import Detection, LivenessAttempt, Outcome
from app.domain.media import MediaKind
from app.faceid.payloads import DecodeError
from tests.support.decoding import BASE64, Reading, answer, media, read


def detection(text: str) -> Detection:
    found = read(f'{{"Response":{{"DetectInfo":{json.dumps(f"""{{"Text":{text}}}""")}}}}}'.encode()).detection
    assert found is not None
    return found


# Absence and errors.


ABSENT: list[object] = [None, "", [], {}]


@pytest.mark.parametrize("absent", [{}, *({"Text": text, "VideoData": text} for text in ABSENT[:3]), []])
def test_missing_null_or_empty_part_is_absent(absent: object) -> None:
    assert read(answer(absent)) == Reading("r-1")


@pytest.mark.parametrize("part", ["IdCardData", "BestFrame", "VideoData"])
@pytest.mark.parametrize("absent", ABSENT)
def test_empty_part_of_any_type_costs_nothing_else(part: str, absent: object) -> None:
    parts = {
        "IdCardData": {"OcrFront": BASE64},
        "BestFrame": {"BestFrame": BASE64},
        "VideoData": {"LivenessVideo": BASE64},
    }
    found = read(answer({"Text": {"ErrCode": 0}} | parts | {part: absent}))

    assert (found.detection, len(media(found)), found.unreadable) == (Detection(err_code=0), 2, {})


def test_text_part_without_values_is_present() -> None:
    assert detection("{}") == Detection()


def test_media_without_content_are_absent() -> None:
    card: dict[str, object] = {
        "OcrFront": None,
        "OcrBack": "",
        "Avatar": [],
        "ProcessedFrontImage": {},
        "ProcessedBackImage": "null",
    }
    info = {"IdCardData": card, "BestFrame": {}, "VideoData": {"LivenessVideo": "AAAA"}}
    found = read(answer(info))

    assert (media(found), found.unreadable) == ({MediaKind.LIVENESS_VIDEO: b"\0\0\0"}, {})


@pytest.mark.parametrize("message", [{"Message": "内部错误。"}, {"Message": None}, {"Message": {"a": [1]}}, {}])
@pytest.mark.parametrize("rest", [{}, {"DetectInfo": None}, {"DetectInfo": 5}, {"DetectInfo": "{"}, {"X": [1]}])
def test_error_is_read_whatever_comes_with_it(message: dict[str, object], rest: dict[str, object]) -> None:
    error = {"Code": "InternalError", **message}
    body = json.dumps({"Response": {"Error": error, "RequestId": "r-2", **rest}}).encode()

    assert read(body) == Reading("r-2", "InternalError")


@pytest.mark.parametrize(
    "request_id", ["", ',"RequestId":null', ',"RequestId":""', ',"RequestId":[]', ',"RequestId":true']
)
def test_response_without_request_id_is_read(request_id: str) -> None:
    assert read(f'{{"Response":{{"DetectInfo":"{{}}"{request_id}}}}}'.encode()).request_id is None


@pytest.mark.parametrize("error", [*ABSENT, False, 0, {"Code": "", "Message": ""}, {"Code": None, "Message": None}])
def test_empty_error_beside_a_result_is_absent(error: object) -> None:
    body = {"Response": {"Error": error, "DetectInfo": json.dumps({"Text": {"ErrCode": 0}}), "RequestId": "r-1"}}

    assert read(json.dumps(body).encode()) == Reading("r-1", None, Detection(err_code=0))


def test_number_as_request_id_or_error_code_is_text() -> None:
    assert read(b'{"Response":{"Error":{"Code":500},"RequestId":7}}') == Reading("7", "500")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a\x1b[31m\r\nb", "a?[31m??b"),
        ("InternalError ", "InternalError"),
        ("内部Error", "??Error"),
        ("x" * 5000, "x" * 64),
    ],
)
def test_identifiers_are_bounded_and_of_visible_characters(sent: str, kept: str) -> None:
    body = {"Response": {"Error": {"Code": sent, "Message": sent}, "RequestId": sent}}

    assert read(json.dumps(body).encode()) == Reading(kept, kept)


DEEP = "[" * 10_000 + "]" * 10_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad Gateway</html>",
        b"null",
        b"[]",
        b"{}",
        b'{"Response":null}',
        b'{"Response":{"DetectInfo":"{}"}',
        b'{"Response":{"DetectInfo":"{}"}}{}',
        b'{"Response":{"DetectInfo":""}}',
        b'{"Response":{"DetectInfo":"null"}}',
        b'{"Response":{"DetectInfo":"{"}}',
        b'{"Response":{"DetectInfo":5}}',
        b'{"Response":{"DetectInfo":[1]}}',
        b'{"Response":{"DetectInfo":{"Text":"secret"}}}',
        b'{"Response":{"DetectInfo":{"Text":[1]}}}',
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


@pytest.mark.parametrize("error", ['"no"', '{"Message":"no code"}', '{"Code":true}', "5"])
def test_error_without_a_code_is_not_taken_for_a_result(error: str) -> None:
    with pytest.raises(DecodeError, match="the error in the answer has no code"):
        read(f'{{"Response":{{"Error":{error},"DetectInfo":"{{}}"}}}}'.encode())


@pytest.mark.parametrize(
    "response", [{}, {"RequestId": "r"}, {"DetectInfo": None}, {"IsVerifyIntention": False, "RequestId": "r"}]
)
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
        (
            '{"LiveStatus":1.0,"ErrCode":1E2,"Comparestatus":"2.0e1"}',
            Detection(err_code=100, live_status=1, compare_status=20),
        ),
        ('{"LiveStatus":0.5}', Detection(further={"LiveStatus": 0.5})),
        ('{"LiveStatus":"no","Comparestatus":{},"ErrMsg":[],"Sim":{}}', Detection(further={"LiveStatus": "no"})),
        ('{"LiveStatus":12345678901}', Detection(live_status=12345678901)),
        ('{"LiveStatus":1000000000000000}', Detection(further={"LiveStatus": 10**15})),
        ('{"LiveStatus":1E99}', Detection(further={"LiveStatus": 1e99})),
        ('{"New":1e400,"Newer":[-1e400],"LiveStatus":1e400,"Name":"a"}', Detection(name="a")),
        (f'{{"New":{"[" * 60}{"]" * 60},"Name":"a"}}', Detection(name="a")),
        # Many brackets side by side are not deep.
        (f'{{"New":[{",".join(["[1]"] * 40)}]}}', Detection(further={"New": [[1]] * 40})),
        (f'{{"New":{"[0]," * 4000}0]}}'.replace(":[0]", ":[[0]", 1), Detection()),
        (f'{{"New":"{"x" * 4096}","Newer":"{"x" * 4095}"}}', Detection(further={"Newer": "x" * 4095})),
        (f'{{"Name":"{"x" * 8193}","OcrName":"{"x" * 8192}"}}', Detection(ocr_name="x" * 8192)),
        (f'{{"ErrMsg":"a\\r\\n\\u202eb{"c" * 5000}"}}', Detection(err_msg=f"a\ufffd\ufffd\ufffdb{'c' * 251}")),
        ('{"Name":"a","Name":"b","ErrCode":0,"ErrCode":2016}', Detection(err_code=2016, name="b")),
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
        ('{"Detail":[]}', Detection()),
        (
            '{"Detail":{"LivenessData":[{},3,null,[1]]}}',
            Detection(further={"Detail": {"LivenessData": [3, [1]]}}, liveness_attempts=(LivenessAttempt(),)),
        ),
        (
            '{"Detail":{"LivenessData":{"0":{"Name":"a"},"2":{"Name":"b"}}}}',
            Detection(liveness_attempts=(LivenessAttempt(name="a"), LivenessAttempt(name="b"))),
        ),
        ('{"LivenessDetail":"none"}', Detection(further={"LivenessDetail": "none"})),
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


@pytest.mark.parametrize(
    "code", ["true", "false", '"passed"', '"null"', '" "', "0.1", '"0x0"', "1e400", "[0]", '{"a":0}']
)
def test_verdict_that_is_no_number_is_unfinished_and_kept(code: str) -> None:
    found = detection(f'{{"ErrCode":{code},"Name":"a"}}')

    assert (found.outcome, found.name) == (Outcome.UNFINISHED, "a")
    assert found.further == ({} if code == "1e400" else {"ErrCode": json.loads(code)})
    assert found.document == f'{{"ErrCode":{code},"Name":"a"}}'


@pytest.mark.parametrize("code", ["0", '"0"', "0.0", '"0.0"', "0E2", "-0", '" 0 "'])
def test_zero_of_any_back_end_is_passed(code: str) -> None:
    assert detection(f'{{"ErrCode":{code}}}') == Detection(err_code=0)


@pytest.mark.parametrize("code", ["null", '""', "[]", "{}", "[ ]"])
def test_empty_verdict_of_any_back_end_is_absent(code: str) -> None:
    assert detection(f'{{"ErrCode":{code}}}') == Detection()


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        (b"\xe5\xbc\xa0\xe4\xb8", "张\ufffd"),
        (b"\xff", "\ufffd"),
        (b"\xed\xa0\xbd", "\ufffd\ufffd\ufffd"),
        (b"\xf0\x9f\x98", "\ufffd"),
    ],
)
@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_malformed_character_is_replaced(name: bytes, stored: str, levels: int, mark: bytes) -> None:
    info = b'{"Text":{"Name":"%b","New":["%b"]}}' % (name, name)
    body = info if levels == 1 else b'"%b"' % info.replace(b'"', b'\\"')

    found = read(mark + b'{"Response":{"DetectInfo":%b}}' % body).detection

    assert found == Detection(name=stored, further={"New": [stored]})


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

    assert read(body) == Reading("?", "a?")


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
        (
            {"IntentionVerifyData": {"IntentionVerifyVideo": "A" * 4096, "AsrResult": "a"}},
            {"IntentionVerifyData": {"AsrResult": "a"}},
        ),
        ({"IntentionVerifyData": {"NewVideo": "A" * 4096, "ErrorCode": None}}, {}),
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
    body = json.dumps({"Response": {"Text": {"ErrCode": None}, f'New"Avatar":"{BASE64}"': 1}}).encode()

    assert read(body).detection == Detection()


@pytest.mark.parametrize("value", ["[" * 40 + "]" * 40, "1e400", "[" + "1234567890123456," * 4000 + "0]"])
def test_unmapped_field_beyond_a_limit_costs_only_itself(value: str) -> None:
    info = f'{{"Text":{{"Name":"a"}},"New":{value},"IdCardData":{{"New":{value},"WarnInfos":[1]}}}}'

    found = read(f'{{"Response":{{"DetectInfo":{info}}}}}'.encode()).detection

    assert found == Detection(name="a", further={"IdCardData": {"WarnInfos": [1]}})


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
