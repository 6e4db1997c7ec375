"""Tencent's answer in our own words: the verdict and the person's data as a `Detection`, the media by their kind."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.domain.detection import Detection, LivenessAttempt, MediaKind
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
    info = _detect_info(response)
    detection = _detection(info.text, lifted) if isinstance(info.text, dict) else None
    media = {kind: _medium(text, lifted, open_sink) for kind, text in _media(info) if text}
    return Answer(head.request_id, None, detection, media)


def head_of(response: Response) -> Head:
    """The part that is common to all answers."""
    error = response.error
    return Head(response.request_id or None, ApiError(error.code, error.message) if error else None)


def _detect_info(response: DetectResponse) -> DetectInfo:
    document = bytes(response.detect_info)
    return parse(parse(document, str).encode() if document.startswith(b'"') else document, DetectInfo)


def _media(info: DetectInfo) -> Iterator[tuple[MediaKind, str | None]]:
    if info.id_card_data:
        yield MediaKind.ID_CARD_FRONT, info.id_card_data.ocr_front
        yield MediaKind.ID_CARD_BACK, info.id_card_data.ocr_back
    if info.best_frame:
        yield MediaKind.BEST_FRAME, info.best_frame.best_frame
    if info.video_data:
        yield MediaKind.LIVENESS_VIDEO, info.video_data.liveness_video


def _medium(text: str, lifted: Lifted, open_sink: Callable[[], Sink]) -> Sink:
    if text in lifted.sinks:
        return lifted.sinks[text]
    data = strict_base64(text)
    sink = open_sink()
    sink.write(data)
    return sink


def _detection(text: JsonObject, lifted: Lifted) -> Detection:
    fields, further = _read(text, _TEXT)
    if "ErrCode" in further:
        raise DecodeError("Text.ErrCode is not a number")
    # A reference must not be stored in place of what it stands for.
    if any(reference.encode() in bytes(value) for reference in lifted.sinks for value in text.values()):
        raise DecodeError("a medium stands within Text")
    attempts, rest = fields.pop("detail", ((), {}))
    if rest:
        further["Detail"] = rest
    return Detection(**fields, further=further, liveness_attempts=attempts)


_DEEPEST = 32
_Reader = Callable[[bytes], object]


def _read(values: JsonObject, table: Mapping[str, tuple[str, _Reader]]) -> tuple[dict[str, Any], dict[str, object]]:
    """Our fields, and what is further: keys that `table` does not have, values that their reader has no use for."""
    fields: dict[str, Any] = {}
    further: dict[str, object] = {}
    for name, raw in values.items():
        source = bytes(raw)
        field, read = table.get(name, ("", _unknown))
        value = read(source)
        if value is not None:
            fields[field] = value
        elif read is _unknown or source not in {b"null", b'""'}:
            further[name] = _not_deeper(parse(source, object), _DEEPEST)
    return fields, further


def _not_deeper(value: object, levels: int) -> object:
    """The value, if what keeps it can walk down it: Python's own recursion is limited."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        if levels == 0:
            raise DecodeError("a value is nested too deeply")
        _not_deeper(child, levels - 1)
    return value


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
}
