"""Answers of GetDetectInfo and GetDetectInfoEnhanced, computed from the BizToken and the scenario alone."""

import base64
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

import msgspec
import pybase64

from simulator.media import VIDEO_BYTES, media_of, picture_of
from simulator.people import Person, person_of
from simulator.requests import DetectInfoEnhancedRequest
from simulator.scenarios import Scenario

_JsonObject = dict[str, object]

TEXT, VIDEO = "1", "4"
"""The digits of these parts in an InfoType."""

ATTEMPTS_OF_A_FAILURE = 3
MS_BETWEEN_ATTEMPTS = 25_000

_MAX_BEST_FRAMES = 10
_PASS_MARK = 70
_CARD_EXPIRED = 302
_WARNING_CARD_EXPIRED = -9100
_MESSAGES = {
    0: "成功",
    14: "已完成验证",
    15: "验证已超时",
    16: "超过最大重试次数",
    17: "未完成核身",
    _CARD_EXPIRED: "身份证已过期",
    2006: "姓名和身份证号不一致",
    2016: "比对相似度低于通过标准",
}
# The thousands of a result code name the stage that failed.
_LIVENESS, _COMPARISON = 1, 2
_STAGE_MESSAGES = {_LIVENESS: "活体检测未通过", _COMPARISON: "比对未通过"}
_STAGE_FIELDS = ("LiveStatus", "LiveMsg", "Comparestatus", "Comparemsg")
_OCR_FIELDS = (
    *("OcrNation", "OcrAddress", "OcrBirth", "OcrAuthority"),
    *("OcrValidDate", "OcrName", "OcrIdCard", "OcrGender"),
)
_ENHANCED_FIELDS = (
    *("LivenessInfoTag", "Mobile", "NFCRequestIds", "NFCBillingCounts", "PassNo", "VisaNum"),
    "LivenessActionSequence",
)
_INTENTION_AND_ENCRYPTION = (
    *("IntentionVerifyData", "IntentionQuestionResult", "IntentionActionResult", "IntentionVerifyType"),
    *("Encryption", "EncryptedBody"),
)
# The parts with media: the digit in InfoType, the object, its key, and the kind in `media_of`.
_MEDIA_FIELDS = (
    ("2", "IdCardData", "OcrFront", "id_card_front"),
    ("2", "IdCardData", "OcrBack", "id_card_back"),
    ("3", "BestFrame", "BestFrame", "best_frame"),
    (VIDEO, "VideoData", "LivenessVideo", "liveness_video"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The person behind a BizToken. `extra`, `id_card` and `name` are DetectAuth's parameters, empty if not given.

    `first_attempt_ms` replaces that of the person.
    """

    biz_token: str
    extra: str = ""
    id_card: str = field(default="", repr=False)
    name: str = field(default="", repr=False)
    first_attempt_ms: int | None = None

    @property
    def person(self) -> Person:
        """The person of the BizToken, with the name and number from DetectAuth."""
        person = person_of(self.biz_token)
        return replace(
            person,
            name=self.name or person.name,
            id_card=self.id_card or person.id_card,
            first_attempt_ms=self.first_attempt_ms or person.first_attempt_ms,
        )


def detect_info(
    subject: Subject, scenario: Scenario, *, parts: AbstractSet[str], video_bytes: int = VIDEO_BYTES
) -> str:
    """Returns GetDetectInfo's `DetectInfo`: a JSON document with the given parts; other parts are missing keys."""
    text: dict[str, object] = {"Text": text_of(subject, scenario)} if TEXT in parts else {}
    if scenario.name == "quoting":
        text = {name: _quoting(value, subject.person) for name, value in text.items()}
    document = msgspec.json.encode(text | _media_objects(subject, scenario, parts, video_bytes)).decode()
    return document.replace("/", "\\/") if scenario.name == "slashes" else document


def enhanced_info(
    subject: Subject,
    scenario: Scenario,
    *,
    parts: AbstractSet[str],
    request: DetectInfoEnhancedRequest,
    video_bytes: int = VIDEO_BYTES,
) -> _JsonObject:
    """Returns GetDetectInfoEnhanced's response. Other parts are null, and so are intention and encryption."""
    media = _media_objects(subject, scenario, parts, video_bytes)
    is_intention = scenario.intention is not None
    return {
        "Text": _enhanced_text(subject, scenario) if TEXT in parts else None,
        "IdCardData": _enhanced_card(media["IdCardData"], request, scenario) if "IdCardData" in media else None,
        "BestFrame": _enhanced_frame(media["BestFrame"], request, scenario) if "BestFrame" in media else None,
        "VideoData": {**media["VideoData"], "LivenessVideos": None} if "VideoData" in media else None,
        **dict.fromkeys(_INTENTION_AND_ENCRYPTION),
        "IsVerifyIntention": is_intention,
        "IntentionVerifyType": "0" if is_intention else None,
        "IntentionQuestionResult": _intention(subject, scenario) if is_intention and "6" in parts else None,
    }


def _quoting(value: object, person: Person, name: str = "") -> object:
    """Adds the name and number of the person to all messages in a value."""
    if isinstance(value, dict):
        return {key: _quoting(inner, person, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_quoting(inner, person) for inner in value]
    is_message = isinstance(value, str) and name.lower().endswith("msg")
    return f"{value}: {person.name}{person.id_card}" if is_message else value


def _intention(subject: Subject, scenario: Scenario) -> _JsonObject:
    """Returns the result of questions that the person answered aloud."""
    video = media_of(subject.biz_token)["liveness_video"]
    picture = picture_of(subject.biz_token, "intention_picture_1")
    return {
        "FinalResultDetailCode": scenario.intention,
        "FinalResultMessage": "成功" if scenario.intention == 0 else "意愿核验不通过",
        "Video": pybase64.b64encode_as_string(video),
        "ScreenShot": [pybase64.b64encode_as_string(picture)],
        "ResultCode": ["0" if scenario.intention == 0 else "-1"],
        "AsrResult": ["同意" if scenario.intention == 0 else "不同意"],
        "Audios": [],
        "FinalResultCode": "0" if scenario.intention == 0 else "-1",
    }


def text_of(subject: Subject, scenario: Scenario) -> _JsonObject:
    """Returns the text part. An unfinished one shows absence in all three spellings, as Tencent's own sample does."""
    err_code = scenario.err_code
    if not scenario.is_finished:
        return {
            "ErrCode": err_code,
            "ErrMsg": None if err_code is None else message_of(err_code),
            "IdCard": "",
            "Name": "",
            **dict.fromkeys((*_OCR_FIELDS, *_STAGE_FIELDS)),
            "Extra": subject.extra,
            "Detail": {"LivenessData": []},
        }
    person, err_code = subject.person, err_code or 0
    verdict, success = (err_code, message_of(err_code)), (0, message_of(0))
    stages: tuple[int | str | None, ...] = (None, None, None, None)
    similarity = None
    if err_code == 0:
        stages, similarity = (*success, *success), person.similarity
    elif err_code // 1000 == _LIVENESS:
        stages = (*verdict, None, None)
    elif err_code // 1000 == _COMPARISON:
        stages, similarity = (*success, *verdict), person.similarity - _PASS_MARK
    return {
        "ErrCode": err_code,
        "ErrMsg": message_of(err_code),
        **dict(zip(_STAGE_FIELDS, stages, strict=True)),
        "IdCard": person.id_card,
        "Name": person.name,
        "OcrNation": person.nation,
        "OcrAddress": person.address,
        "OcrBirth": f"{person.birth.year}/{person.birth.month}/{person.birth.day}",
        "OcrAuthority": person.authority,
        "OcrValidDate": person.valid_date,
        "OcrName": person.name,
        "OcrIdCard": person.id_card,
        "OcrGender": person.gender,
        "Sim": None if similarity is None else f"{similarity:.2f}",
        "Location": person.location,
        "Extra": subject.extra,
        "Detail": {"LivenessData": _attempts(person, err_code)},
    }


def message_of(err_code: int) -> str:
    """Returns a message for a result code. Tencent does not document the texts, so clients must not rely on them."""
    return _MESSAGES.get(err_code) or _STAGE_MESSAGES.get(err_code // 1000) or "验证失败"


def _attempts(person: Person, err_code: int) -> list[_JsonObject]:
    return [
        {
            "ErrCode": err_code,
            "ErrMsg": message_of(err_code),
            "ReqTime": str(person.first_attempt_ms + number * MS_BETWEEN_ATTEMPTS),
            "IdCard": person.id_card,
            "Name": person.name,
        }
        for number in range(ATTEMPTS_OF_A_FAILURE if err_code else 1)
    ]


def _enhanced_text(subject: Subject, scenario: Scenario) -> _JsonObject:
    text = text_of(subject, scenario)
    del text["Detail"]
    attempts = _attempts(subject.person, scenario.err_code or 0) if scenario.is_finished else []
    text["LivenessDetail"] = [
        {
            "ReqTime": attempt["ReqTime"],
            "Seq": f"{attempt['ReqTime']}-{number}",
            "Idcard": attempt["IdCard"],
            "Name": attempt["Name"],
            "Sim": text["Sim"],
            "IsNeedCharge": text["Comparestatus"] is not None,
            "Errcode": attempt["ErrCode"],
            "Errmsg": attempt["ErrMsg"],
            "Livestatus": text["LiveStatus"],
            "Livemsg": text["LiveMsg"],
            "Comparestatus": text["Comparestatus"],
            "Comparemsg": text["Comparemsg"],
            "CompareLibType": "权威库",
            "LivenessMode": 3,
        }
        for number, attempt in enumerate(attempts)
    ]
    source = (0, "OCR", "权威库", 3) if scenario.is_finished else (None, None, None, None)
    return (
        dict.fromkeys(_ENHANCED_FIELDS)
        | dict(zip(("UseIDType", "IdInfoFrom", "CompareLibType", "LivenessMode"), source, strict=True))
        | text
    )


def _enhanced_card(
    card: Mapping[str, str | None], request: DetectInfoEnhancedRequest, scenario: Scenario
) -> _JsonObject:
    wanted = {
        "ProcessedFrontImage": ("id_card_front_cut", request.is_cut_id_card_image),
        "ProcessedBackImage": ("id_card_back_cut", request.is_cut_id_card_image),
        "Avatar": ("id_card_avatar", request.is_need_id_card_avatar),
    }
    return {
        **card,
        **{
            name: _picture(request, kind) if is_wanted and scenario.is_finished else None
            for name, (kind, is_wanted) in wanted.items()
        },
        "WarnInfos": None,
        # The back of the card has the dates.
        "BackWarnInfos": [_WARNING_CARD_EXPIRED] if scenario.err_code == _CARD_EXPIRED else None,
    }


def _enhanced_frame(
    frame: Mapping[str, str | None], request: DetectInfoEnhancedRequest, scenario: Scenario
) -> _JsonObject:
    count = min(request.best_frames_count, _MAX_BEST_FRAMES) if scenario.is_finished else 0
    frames = [_picture(request, f"best_frame_{number}") for number in range(1, count + 1)]
    return {**frame, "BestFrames": frames or None}


def _picture(request: DetectInfoEnhancedRequest, kind: str) -> str:
    return pybase64.b64encode_as_string(picture_of(request.biz_token, kind))


def _media_objects(
    subject: Subject, scenario: Scenario, parts: AbstractSet[str], video_bytes: int
) -> dict[str, dict[str, str | None]]:
    """Returns the objects with media in base64, null while the person has not finished."""
    objects: dict[str, dict[str, str | None]] = {}
    wanted = parts - {TEXT} - ({VIDEO} if scenario.name == "novideo" else set())
    media = media_of(subject.biz_token, video_bytes=video_bytes) if wanted and scenario.is_finished else {}
    for part, name, key, kind in _MEDIA_FIELDS:
        if part in wanted:
            content = media.get(kind)
            objects.setdefault(name, {})[key] = _encoded(content, scenario) if content else None
    if scenario.name == "address" and VIDEO in wanted:
        objects["VideoData"]["LivenessVideo"] = address_of(subject.biz_token)
    return objects


def address_of(biz_token: str) -> str:
    """Returns the address of the video in the customer's bucket."""
    return f"https://faceid-1250000000.cos.ap-guangzhou.myqcloud.com/video/{biz_token}.mp4"


def _encoded(content: bytes, scenario: Scenario) -> str:
    if scenario.name == "mime":
        return base64.encodebytes(content).replace(b"\n", b"\r\n").decode()
    return pybase64.b64encode_as_string(content)
