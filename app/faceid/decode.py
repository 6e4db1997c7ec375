"""Maps response bodies to our own values: results to `Detection` and media by kind, bills to BizTokens."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic

import msgspec

from app.domain.detection import Detection, LivenessAttempt, instant_of
from app.domain.media import (
    BEST_FRAMES,
    INTENTION_AUDIOS,
    INTENTION_PICTURES,
    INTENTION_VIDEOS,
    MediaKind,
    UnreadableReason,
)
from app.faceid.extras import kept_values, without_empty
from app.faceid.lifter import LiftedBody, LiftError, S
from app.faceid.payloads import (
    DecodeError,
    JsonObject,
    OversizedError,
    Reader,
    cleaned,
    code,
    elements,
    is_absent,
    line,
    parse,
    read_fields,
    record,
    string,
)

_MAX_ATTEMPTS = 256
_MAX_IDENTIFIER = 64
_INVISIBLE = re.compile("[^!-~]")
_ADDRESS = re.compile(r"https?://\S")
# HasNextPage as Tencent and PHP send it, without the quotes of a text.
_FLAGS = {b"true": True, b"1": True, b"false": False, b"0": False}


@dataclass(frozen=True, slots=True)
class BilledToken:
    """A BizToken that was charged. `first_attempt_at` is its earliest comparison, if the bill has a time for it."""

    biz_token: str
    rule_id: str
    first_attempt_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Bill:
    """A page of a bill. `malformed` rows lack BizToken or RuleId; `next_cursor` is None on the last page."""

    biz_tokens: Sequence[BilledToken] = ()
    malformed: int = 0
    next_cursor: int | None = None


@dataclass(frozen=True, slots=True)
class DetectInfo(Generic[S]):
    """A result. `detection` is None without a Text part. `unreadable` are the media that exist but are not base64."""

    detection: Detection | None = None
    media: dict[MediaKind, S] = field(default_factory=dict)
    unreadable: dict[MediaKind, UnreadableReason] = field(default_factory=dict)


class _Envelope(msgspec.Struct, rename="pascal"):
    response: JsonObject


def decode_head(body: LiftedBody[S]) -> tuple[str | None, str | None]:
    """Returns the RequestId and the error code of any response. With an error code, nothing else is in it.

    Both are bounded and of visible ASCII characters, because they are stored, logged and answered.

    Raises:
        DecodeError: it is not a response of Tencent's, or its error has no code.
    """
    response = _response(body)
    error = _source(response, "Error")
    # PHP back ends write false or 0 for nothing.
    error = b"null" if error in {b"false", b"0"} else error
    fields = record(error) or {}
    error_code = _identifier(_source(fields, "Code"))
    is_empty = fields and all(is_absent(bytes(raw)) for raw in fields.values())
    if error_code is None and not (is_absent(error) or is_empty):
        raise DecodeError("the error in the answer has no code")
    return _identifier(_source(response, "RequestId")), error_code


def decode_bill(body: LiftedBody[S]) -> Bill:
    """Returns a page of a bill.

    Raises:
        DecodeError: it is not what Tencent documents. A malformed row costs only itself.
    """
    response = _response(body)
    details, cursor = _source(response, "WeChatBillDetails"), code(_source(response, "NextCursor"))
    rows = () if is_absent(details) else elements(details)
    has_next = _FLAGS.get(_source(response, "HasNextPage").strip(b'"'))
    if rows is None or has_next is None or (has_next and cursor is None):
        raise DecodeError("the bill is not what Tencent documents")
    tokens = [_billed_token(record(row) or {}) for row in rows]
    found = [token for token in tokens if token]
    return Bill(found, malformed=len(tokens) - len(found), next_cursor=cursor if has_next else None)


def _billed_token(row: JsonObject) -> BilledToken | None:
    biz_token, rule_id = line(_source(row, "BizToken")), line(_source(row, "RuleId"))
    if not biz_token or not rule_id:
        return None
    charges = [record(source) or {} for source in elements(_source(row, "ChargeDetails")) or ()]
    instants = [instant_of(line(_source(charge, "ReqTime"))) for charge in charges]
    return BilledToken(biz_token, rule_id, min((at for at in instants if at), default=None))


def decode_detect_info(body: LiftedBody[S]) -> DetectInfo[S]:
    """Returns the result. A value that Tencent does not document costs only its field or its media item.

    Raises:
        DecodeError: it is no result, or its Text is no object. This says nothing about the token.
        OversizedError: it has more attempts than any real one.
    """
    info = _info(_response(body))
    info = info | {name: _flattened(_source(info, name)) for name in info.keys() & {"IntentionActionResult"}}
    found: DetectInfo[S] = DetectInfo()
    parts = {name: _read_part(name, _source(info, name), body, found) for name in _MEDIA}
    text = _source(info, "Text")
    if is_absent(text) and record(text) is None:
        return found
    others = {name: bytes(raw) for name, raw in info.items() if name not in {"Text", "Error", "RequestId", *_MEDIA}}
    further = without_empty(kept_values(others, body) | parts)
    detection = _detection(body.without_references(text), further, body)
    intention = _intention(info)
    return replace(found, detection=replace(detection, **intention) if intention else detection)


def _response(body: LiftedBody[S]) -> JsonObject:
    return parse(cleaned(body.skeleton), _Envelope).response


def _source(values: JsonObject, name: str) -> bytes:
    return bytes(values.get(name, b"null"))


def _identifier(source: bytes) -> str | None:
    text = string(source) or ""
    return _INVISIBLE.sub("?", text.strip()[:_MAX_IDENTIFIER]) or None


def _info(response: JsonObject) -> JsonObject:
    """Returns the result: a JSON document in a string, or the object itself.

    GetDetectInfoEnhanced has no DetectInfo. Its whole response is the object.
    """
    document = _source(response, "DetectInfo")
    if document.startswith(b'"'):
        document = cleaned(parse(document, str).encode()).strip()
    elif document == b"null":
        if not response.keys() & {"Text", *_MEDIA}:
            raise DecodeError("there is no part of a result in the answer")
        return response
    return {} if document == b"[]" else parse(document, JsonObject)


def _flattened(source: bytes) -> msgspec.Raw:
    """Replaces the rounds of an IntentionActionResult by lists of their media."""
    fields = record(source) or {}
    rounds = [record(item) or {} for item in elements(_source(fields, "Details")) or ()]
    if not rounds:
        return msgspec.Raw(source)
    videos = [_source(each, "Video") for each in rounds]
    pictures = [item for each in rounds for item in elements(_source(each, "ScreenShot")) or ()]
    media = {"Video": videos, "ScreenShot": pictures}
    lists = {name: msgspec.Raw(b"[%b]" % b",".join(items)) for name, items in media.items()}
    return msgspec.Raw(msgspec.json.encode({name: raw for name, raw in fields.items() if name != "Details"} | lists))


def _intention(info: JsonObject) -> dict[str, Any]:
    """Returns the result of the intention by our names: only GetDetectInfoEnhanced has it, outside the Text.

    A flag that is neither true nor false counts as true, and a code that is no number as none. A result without a flag
    counts too.
    """
    flag = _source(info, "IsVerifyIntention")
    mode = code(_source(info, "IntentionVerifyType"))
    name = None if mode is None else _INTENTION_MODES.get(mode)
    results = [record(_source(info, each)) or {} for each in ([name] if name else _INTENTION_MODES.values())]
    sources = [_source(result, key) for result in results for key in _INTENTION_CODES]
    codes = [code(source) for source in sources if not is_absent(source)]
    if _FLAGS.get(flag.strip(b'"')) is False or (is_absent(flag) and not codes):
        return {}
    messages = [line(_source(result, key)) for result in results for key in _INTENTION_MESSAGES]
    return {
        "is_intention_required": True,
        "intention_status": next(filter(None, codes), 0) if codes and None not in codes else None,
        "intention_msg": next(filter(None, messages), None),
    }


def _read_part(name: str, part: bytes, body: LiftedBody[S], found: DetectInfo[S]) -> object:
    """Adds the media of a part to `found`; returns its unmapped fields.

    An address instead of a media item is one of them: Tencent sends it if the videos are in the customer's bucket.
    """
    fields = record(part)
    if fields is None:
        # Nothing shows which of its media the part would have.
        fields = {next(iter(_MEDIA[name])): msgspec.Raw(part)}
    rest = {key: bytes(raw) for key, raw in fields.items() if key not in _MEDIA[name]}
    kept: dict[str, list[bytes]] = {}
    for kind, key, source in _media_in(name, fields):
        if is_absent(source) or source == b'"null"':
            continue
        item = _item(source, body)
        if not isinstance(item, UnreadableReason):
            found.media[kind] = item
            continue
        found.unreadable[kind] = item
        if item is not UnreadableReason.NOT_BASE64:
            kept.setdefault(key, []).append(source)
    for key, sources in kept.items():
        is_whole = sources == [_source(fields, key)]
        rest[key] = sources[0] if is_whole else b"[%b]" % b",".join(sources)
    return without_empty(kept_values(rest, body))


def _media_in(part: str, fields: JsonObject) -> Iterator[tuple[MediaKind, str, bytes]]:
    """Yields the media of a part: their kinds, keys and values. A key with several kinds has a list."""
    for key, kinds in _MEDIA[part].items():
        source = _source(fields, key)
        items = elements(source) if len(kinds) > 1 else None
        for kind, item in zip(kinds, [source] if items is None else items, strict=False):
            yield kind, key, item


def _item(source: bytes, body: LiftedBody[S]) -> S | UnreadableReason:
    if not source.startswith(b'"'):
        return UnreadableReason.NOT_TEXT
    text = parse(source, str)
    try:
        return body.item(text)
    except LiftError:
        return UnreadableReason.ADDRESS if _ADDRESS.match(text) else UnreadableReason.NOT_BASE64


def _detection(source: bytes, further: dict[str, object], body: LiftedBody[S]) -> Detection:
    """Returns the text. A verdict that is no number stays among the unmapped fields, so it counts as unfinished."""
    fields, rest = read_fields(parse(source, JsonObject), _TEXT)
    attempts = _attempts(rest, "LivenessDetail", body)
    detail = rest.pop("Detail", b"null")
    inner = {name: bytes(raw) for name, raw in (record(detail) or {}).items()}
    attempts = _attempts(inner, "LivenessData", body) + attempts
    extras = kept_values(rest, body)
    if inner_extras := kept_values(inner, body):
        extras["Detail"] = inner_extras
    elif record(detail) is None and not is_absent(detail):
        extras |= kept_values({"Detail": detail}, body)
    return Detection(**fields, further=extras | further, document=source.decode(), liveness_attempts=attempts)


def _attempts(fields: dict[str, bytes], name: str, body: LiftedBody[S]) -> tuple[LivenessAttempt, ...]:
    """Takes the attempts out of the fields. Elements that are no attempts stay there."""
    source = fields.pop(name, b"null")
    items = () if is_absent(source) else elements(source)
    if items is None:
        fields[name] = source
        return ()
    if len(items) > _MAX_ATTEMPTS:
        raise OversizedError("the answer has too many attempts")
    if others := [item for item in items if not item.startswith(b"{") and not is_absent(item)]:
        fields[name] = b"[%b]" % b",".join(others)
    read = [read_fields(parse(item, JsonObject), _ATTEMPT) for item in items if item.startswith(b"{")]
    return tuple(LivenessAttempt(**values, further=kept_values(rest, body)) for values, rest in read)


_ATTEMPT: Mapping[str, tuple[str, Reader]] = {
    "ErrCode": ("err_code", code),
    "ErrMsg": ("err_msg", line),
    "ReqTime": ("req_time", line),
    "IdCard": ("id_card", string),
    "Name": ("name", string),
    # The spelling of GetDetectInfoEnhanced.
    "Errcode": ("err_code", code),
    "Errmsg": ("err_msg", line),
    "Idcard": ("id_card", string),
}
_TEXT: Mapping[str, tuple[str, Reader]] = {
    "ErrCode": ("err_code", code),
    "ErrMsg": ("err_msg", line),
    "IdCard": ("id_card", string),
    "Name": ("name", string),
    "OcrNation": ("ocr_nation", string),
    "OcrAddress": ("ocr_address", string),
    "OcrBirth": ("ocr_birth", string),
    "OcrAuthority": ("ocr_authority", string),
    "OcrValidDate": ("ocr_valid_date", string),
    "OcrName": ("ocr_name", string),
    "OcrIdCard": ("ocr_id_card", string),
    "OcrGender": ("ocr_gender", string),
    "LiveStatus": ("live_status", code),
    "LiveMsg": ("live_msg", line),
    "Comparestatus": ("compare_status", code),
    "Comparemsg": ("compare_msg", line),
    "Sim": ("sim", line),
    "Location": ("location", string),
    "Extra": ("extra", string),
}
_MEDIA: Mapping[str, Mapping[str, Sequence[MediaKind]]] = {
    "IdCardData": {
        "OcrFront": [MediaKind.ID_CARD_FRONT],
        "OcrBack": [MediaKind.ID_CARD_BACK],
        "ProcessedFrontImage": [MediaKind.ID_CARD_FRONT_CUT],
        "ProcessedBackImage": [MediaKind.ID_CARD_BACK_CUT],
        "Avatar": [MediaKind.ID_CARD_AVATAR],
    },
    "BestFrame": {"BestFrame": [MediaKind.BEST_FRAME], "BestFrames": BEST_FRAMES},
    "VideoData": {"LivenessVideo": [MediaKind.LIVENESS_VIDEO]},
    "IntentionVerifyData": {
        "IntentionVerifyVideo": INTENTION_VIDEOS[:1],
        "IntentionVerifyBestFrame": INTENTION_PICTURES[:1],
        "IntentionVerifyAudio": INTENTION_AUDIOS[:1],
    },
    "IntentionQuestionResult": {
        "Video": INTENTION_VIDEOS[:1],
        "ScreenShot": INTENTION_PICTURES,
        "Audios": INTENTION_AUDIOS,
    },
    "IntentionActionResult": {"Video": INTENTION_VIDEOS, "ScreenShot": INTENTION_PICTURES},
}
# By IntentionVerifyType. Unlike FinalResultDetailCode, FinalResultCode says only whether the person confirmed.
_INTENTION_MODES = {0: "IntentionQuestionResult", 1: "IntentionActionResult", 2: "IntentionVerifyData"}
_INTENTION_CODES = ("FinalResultDetailCode", "ErrorCode", "FinalResultCode")
_INTENTION_MESSAGES = ("FinalResultMessage", "ErrorMessage")
