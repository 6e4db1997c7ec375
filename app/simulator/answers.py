"""The answers of GetDetectInfo and GetDetectInfoEnhanced, computed from the BizToken and the scenario alone."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

import msgspec
import pybase64

from app.domain.detection import BEST_FRAMES, MediaKind, Part
from app.simulator.media import VIDEO_BYTES, media_of, picture_of
from app.simulator.people import Person, person_of
from app.simulator.requests import DetectInfoEnhancedRequest
from app.simulator.scenarios import Scenario

_JsonObject = dict[str, object]
_MediaObjects = dict[str, dict[str, str | None]]

_CARD_EXPIRED = 302
_WARNING_OF_EXPIRY = -9100  # of the side that has the dates

_MESSAGES = {
    14: "已完成验证",
    15: "验证已超时",
    16: "超过最大重试次数",
    17: "未完成核身",
    _CARD_EXPIRED: "身份证已过期",
    2006: "姓名和身份证号不一致",
    2016: "比对相似度低于通过标准",
}
_MESSAGES_BY_THOUSANDS = {1: "活体检测未通过", 2: "比对未通过"}
ATTEMPTS_OF_A_FAILURE = 3
MS_BETWEEN_ATTEMPTS = 25_000
_OCR_FIELDS = (
    *("OcrNation", "OcrAddress", "OcrBirth", "OcrAuthority"),
    *("OcrValidDate", "OcrName", "OcrIdCard", "OcrGender"),
)
_VERDICT_FIELDS = ("ErrCode", "ErrMsg", "LiveStatus", "LiveMsg", "Comparestatus", "Comparemsg")
_ENHANCED_FIELDS = (
    *("LivenessInfoTag", "Mobile", "NFCRequestIds", "NFCBillingCounts", "PassNo", "VisaNum"),
    "LivenessActionSequence",
)
_ABSENT_OBJECTS = (
    *("IntentionVerifyData", "IntentionQuestionResult", "IntentionActionResult", "IntentionVerifyType"),
    *("Encryption", "EncryptedBody"),
)
_MEDIA_FIELDS = {
    MediaKind.ID_CARD_FRONT: (Part.ID_CARD, "IdCardData", "OcrFront"),
    MediaKind.ID_CARD_BACK: (Part.ID_CARD, "IdCardData", "OcrBack"),
    MediaKind.BEST_FRAME: (Part.BEST_FRAME, "BestFrame", "BestFrame"),
    MediaKind.LIVENESS_VIDEO: (Part.VIDEO, "VideoData", "LivenessVideo"),
}
_LIVENESS, _COMPARISON = 1, 2  # the thousands of their codes
_PASS_MARK = 70


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whose result it is; `extra`, `id_card` and `name` as DetectAuth was told them, empty where it was not."""

    biz_token: str
    extra: str = ""
    id_card: str = field(default="", repr=False)
    name: str = field(default="", repr=False)

    @property
    def person(self) -> Person:
        """The person of the BizToken, under the name and number that DetectAuth was told."""
        person = person_of(self.biz_token)
        return replace(person, name=self.name or person.name, id_card=self.id_card or person.id_card)


def detect_info(
    subject: Subject, scenario: Scenario, *, parts: AbstractSet[str], video_bytes: int = VIDEO_BYTES
) -> str:
    """GetDetectInfo's `DetectInfo`: a JSON document with the parts asked for, by digit; the others are missing keys."""
    text = {"Text": text_of(subject, scenario)} if Part.TEXT in parts else {}
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
    """GetDetectInfoEnhanced's response; parts not asked for are null, and so is all that concerns intention."""
    media = _media_objects(subject, scenario, parts, video_bytes)
    return {
        "Text": _enhanced_text(subject, scenario) if Part.TEXT in parts else None,
        "IdCardData": _enhanced_card(media, request, scenario),
        "BestFrame": _enhanced_frame(media, request, scenario),
        "VideoData": media["VideoData"] | {"LivenessVideos": None} if "VideoData" in media else None,
        "IsVerifyIntention": False,
        **dict.fromkeys(_ABSENT_OBJECTS),
    }


def text_of(subject: Subject, scenario: Scenario) -> _JsonObject:
    """The text part; where the person has not finished, absent in all three spellings, as Tencent's own sample is."""
    if not scenario.is_finished:
        return {
            "ErrCode": scenario.err_code,
            "ErrMsg": None if scenario.err_code is None else message_of(scenario.err_code),
            "IdCard": "",
            "Name": "",
            **dict.fromkeys((*_OCR_FIELDS, *_VERDICT_FIELDS[2:])),
            "Extra": subject.extra,
            "Detail": {"LivenessData": []},
        }
    person, err_code = subject.person, scenario.err_code or 0
    return {
        **_verdict(err_code),
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
        "Sim": _similarity(person, err_code),
        "Location": person.location,
        "Extra": subject.extra,
        "Detail": {"LivenessData": _attempts(person, err_code)},
    }


def message_of(err_code: int) -> str:
    """What Tencent might say to a result code; nobody may rely on the words."""
    known = _MESSAGES.get(err_code) or _MESSAGES_BY_THOUSANDS.get(err_code // 1000)
    return "成功" if err_code == 0 else known or "验证失败"


def _verdict(err_code: int) -> _JsonObject:
    """The final code and that of each stage; a stage that was not reached has none."""
    failure, success, nothing = (err_code, message_of(err_code)), (0, message_of(0)), (None, None)
    stages = {_LIVENESS: (failure, nothing), _COMPARISON: (success, failure)}
    live, compare = (success, success) if err_code == 0 else stages.get(err_code // 1000, (nothing, nothing))
    return dict(zip(_VERDICT_FIELDS, (*failure, *live, *compare), strict=True))


def _similarity(person: Person, err_code: int) -> str | None:
    """In percent; below the 70 of a pass where the comparison failed, None where nothing was compared."""
    if err_code == 0:
        return f"{person.similarity:.2f}"
    return f"{person.similarity - _PASS_MARK:.2f}" if err_code // 1000 == _COMPARISON else None


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
    attempts = _attempts(subject.person, scenario.err_code or 0) if scenario.is_finished else []
    text["LivenessDetail"] = [_enhanced_attempt(attempt, text, number) for number, attempt in enumerate(attempts)]
    del text["Detail"]
    source = (0, "OCR", "权威库", 3) if scenario.is_finished else (None, None, None, None)
    return (
        dict.fromkeys(_ENHANCED_FIELDS)
        | dict(zip(("UseIDType", "IdInfoFrom", "CompareLibType", "LivenessMode"), source, strict=True))
        | text
    )


def _enhanced_attempt(attempt: _JsonObject, text: _JsonObject, number: int) -> _JsonObject:
    """The same attempt as GetDetectInfo tells it, in the other spelling."""
    return {
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


def _enhanced_card(media: _MediaObjects, request: DetectInfoEnhancedRequest, scenario: Scenario) -> _JsonObject | None:
    """The card's pictures; nothing is to be cut off the samples. A card that has expired is warned of."""
    if (card := media.get("IdCardData")) is None:
        return None
    wanted = {
        "ProcessedFrontImage": (MediaKind.ID_CARD_FRONT_CUT, request.is_cut_id_card_image),
        "ProcessedBackImage": (MediaKind.ID_CARD_BACK_CUT, request.is_cut_id_card_image),
        "Avatar": (MediaKind.ID_CARD_AVATAR, request.is_need_id_card_avatar),
    }
    return {
        **card,
        **{
            name: _picture(request, kind) if is_wanted and scenario.is_finished else None
            for name, (kind, is_wanted) in wanted.items()
        },
        "WarnInfos": None,
        "BackWarnInfos": [_WARNING_OF_EXPIRY] if scenario.err_code == _CARD_EXPIRED else None,
    }


def _enhanced_frame(media: _MediaObjects, request: DetectInfoEnhancedRequest, scenario: Scenario) -> _JsonObject | None:
    if (frame := media.get("BestFrame")) is None:
        return None
    kinds = BEST_FRAMES[: request.best_frames_count] if scenario.is_finished else ()
    return {**frame, "BestFrames": [_picture(request, kind) for kind in kinds] or None}


def _picture(request: DetectInfoEnhancedRequest, kind: MediaKind) -> str:
    return pybase64.b64encode_as_string(picture_of(request.biz_token, kind))


def _media_objects(subject: Subject, scenario: Scenario, parts: AbstractSet[str], video_bytes: int) -> _MediaObjects:
    """The objects with media that were asked for, in base64; null where the person has not finished."""
    objects: _MediaObjects = {}
    wanted = parts - {Part.TEXT} - ({Part.VIDEO} if scenario.name == "novideo" else set())
    media = media_of(subject.biz_token, video_bytes=video_bytes) if wanted and scenario.is_finished else {}
    for kind, (part, name, key) in _MEDIA_FIELDS.items():
        if part in wanted:
            content = media.get(kind)
            objects.setdefault(name, {})[key] = pybase64.b64encode_as_string(content) if content else None
    return objects
