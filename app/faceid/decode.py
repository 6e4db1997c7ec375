"""Tencent's answer in our own words: the verdict and the person's data as a `Detection`, the media by their kind."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from app.domain.detection import BEST_FRAMES, Detection, LivenessAttempt, MediaKind
from app.faceid.further import PARTS, beside, plain, refers
from app.faceid.lift import Lifted, Sink, strict_base64
from app.faceid.payloads import DecodeError, DetectInfo, DetectResponse, Envelope, JsonObject, Response, parse

__all__ = ["Answer", "ApiError", "DecodeError", "Head", "decode", "head_of"]


@dataclass(frozen=True, slots=True)
class ApiError:
    """Tencent's `Response.Error`."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Head:
    """What every answer says, whatever was asked; with an error, there is nothing else in it."""

    request_id: str | None
    error: ApiError | None


@dataclass(frozen=True, slots=True)
class Answer(Head):
    """The parts of the result that were asked for and exist; `detection` is None without a Text part."""

    detection: Detection | None
    media: Mapping[MediaKind, Sink]


def decode(lifted: Lifted, open_sink: Callable[[], Sink]) -> Answer:
    """Understand one answer; media too short to have been lifted are written to sinks of their own.

    Raises:
        DecodeError: it is not what Tencent documents. Nothing about the token follows from that.
    """
    response = parse(lifted.skeleton, Envelope[DetectResponse]).response
    head = head_of(response)
    if head.error:
        return Answer(head.request_id, head.error, None, {})
    document = _document(response, lifted)
    info = parse(document, DetectInfo)
    detection = _detection(info.text, document, lifted) if isinstance(info.text, dict) else None
    media = {kind: _medium(text, lifted, open_sink) for kind, text in _media(info) if text}
    return Answer(head.request_id, None, detection, media)


def head_of(response: Response) -> Head:
    """The part that is common to all answers."""
    error = response.error
    return Head(response.request_id or None, ApiError(error.code, error.message) if error else None)


def _document(response: DetectResponse, lifted: Lifted) -> bytes:
    document = bytes(response.detect_info)
    if document:
        return parse(document, str).encode() if document.startswith(b'"') else document
    document = bytes(parse(lifted.skeleton, Envelope[msgspec.Raw]).response)
    if not parse(document, JsonObject).keys() & PARTS:
        raise DecodeError("there is no part of a result in the answer")
    return document


def _media(info: DetectInfo) -> Iterator[tuple[MediaKind, str | None]]:
    if info.id_card_data:
        yield MediaKind.ID_CARD_FRONT, info.id_card_data.ocr_front
        yield MediaKind.ID_CARD_BACK, info.id_card_data.ocr_back
        yield MediaKind.ID_CARD_FRONT_CUT, info.id_card_data.processed_front_image
        yield MediaKind.ID_CARD_BACK_CUT, info.id_card_data.processed_back_image
        yield MediaKind.ID_CARD_AVATAR, info.id_card_data.avatar
    if info.best_frame:
        yield MediaKind.BEST_FRAME, info.best_frame.best_frame
        yield from zip(BEST_FRAMES, info.best_frame.best_frames or (), strict=False)
    if info.video_data:
        yield MediaKind.LIVENESS_VIDEO, info.video_data.liveness_video


def _medium(text: str, lifted: Lifted, open_sink: Callable[[], Sink]) -> Sink:
    if text in lifted.sinks:
        return lifted.sinks[text]
    data = strict_base64(text)
    sink = open_sink()
    sink.write(data)
    return sink


def _detection(text: JsonObject, document: bytes, lifted: Lifted) -> Detection:
    fields, further = _read(text, _TEXT)
    if "ErrCode" in further:
        raise DecodeError("Text.ErrCode is not a number")
    # A reference must not be stored in place of what it stands for.
    if any(refers(name.encode() + bytes(value), lifted) for name, value in text.items()):
        raise DecodeError("a medium stands within Text")
    attempts, rest = fields.pop("detail", ((), {}))
    if rest:
        further["Detail"] = rest
    attempts += fields.pop("liveness_attempts", ())
    source = bytes(parse(document, JsonObject)["Text"]).decode()
    return Detection(**fields, further=further | beside(document, lifted), document=source, liveness_attempts=attempts)


_Reader = Callable[[bytes], object]


def _read(values: JsonObject, table: Mapping[str, tuple[str, _Reader]]) -> tuple[dict[str, Any], dict[str, object]]:
    """Our fields, and what is further: keys that `table` does not have, values that their reader has no use for."""
    fields: dict[str, Any] = {}
    further: dict[str, object] = {}
    for name, raw in values.items():
        source = bytes(raw)
        field, read = table.get(name, ("", _unknown))
        value = read(source)
        if value is not None and field not in fields:
            fields[field] = value
        elif read is _unknown or source not in {b"null", b'""'}:
            further[name] = plain(source)
    return fields, further


def _unknown(_source: bytes) -> None:
    """Nobody reads a key that we do not know."""


# Nine digits, so that any integer column can hold the code.
_CODE = re.compile(rb'("?)(-?[0-9]{1,9})\1')


def _code(source: bytes) -> int | None:
    match = _CODE.fullmatch(source)
    return int(match[2]) if match else None


def _string(source: bytes) -> str | None:
    if source.startswith(b'"'):
        return parse(source, str) or None
    return source.decode() if source[0] in b"-0123456789" else None


def _attempts(source: bytes) -> tuple[LivenessAttempt, ...] | None:
    try:
        attempts = [_read(attempt, _ATTEMPT) for attempt in parse(source, list[JsonObject])]
    except DecodeError:
        return None
    return tuple(LivenessAttempt(**fields, further=further) for fields, further in attempts)


def _detail(source: bytes) -> tuple[tuple[LivenessAttempt, ...], dict[str, object]] | None:
    try:
        fields, further = _read(parse(source, JsonObject), _DETAIL)
    except DecodeError:
        return None
    return fields.get("liveness_attempts", ()), further


_ATTEMPT: Mapping[str, tuple[str, _Reader]] = {
    "ErrCode": ("err_code", _code),
    "ErrMsg": ("err_msg", _string),
    "ReqTime": ("req_time", _string),
    "IdCard": ("id_card", _string),
    "Name": ("name", _string),
    # In GetDetectInfoEnhanced's spelling.
    "Errcode": ("err_code", _code),
    "Errmsg": ("err_msg", _string),
    "Idcard": ("id_card", _string),
}
_DETAIL: Mapping[str, tuple[str, _Reader]] = {"LivenessData": ("liveness_attempts", _attempts)}
_TEXT: Mapping[str, tuple[str, _Reader]] = {
    "ErrCode": ("err_code", _code),
    "ErrMsg": ("err_msg", _string),
    "IdCard": ("id_card", _string),
    "Name": ("name", _string),
    "OcrNation": ("ocr_nation", _string),
    "OcrAddress": ("ocr_address", _string),
    "OcrBirth": ("ocr_birth", _string),
    "OcrAuthority": ("ocr_authority", _string),
    "OcrValidDate": ("ocr_valid_date", _string),
    "OcrName": ("ocr_name", _string),
    "OcrIdCard": ("ocr_id_card", _string),
    "OcrGender": ("ocr_gender", _string),
    "LiveStatus": ("live_status", _code),
    "LiveMsg": ("live_msg", _string),
    "Comparestatus": ("compare_status", _code),
    "Comparemsg": ("compare_msg", _string),
    "Sim": ("sim", _string),
    "Location": ("location", _string),
    "Extra": ("extra", _string),
    "Detail": ("detail", _detail),
    "LivenessDetail": ("liveness_attempts", _attempts),
}
