"""Maps response bodies to our own values: results to `Detection` and media by kind, bills to BizTokens."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from app.domain.detection import Detection, LivenessAttempt, instant_of
from app.domain.media import BEST_FRAMES, MediaKind
from app.faceid.extras import PARTS, has_reference, parse_value, unmapped_fields
from app.faceid.lifter import LiftedBody, S
from app.faceid.payloads import (
    BillDetail,
    BillResponse,
    DecodeError,
    DetectInfo,
    DetectResponse,
    Envelope,
    JsonObject,
    Response,
    parse,
)


@dataclass(frozen=True, slots=True)
class BilledToken:
    """A BizToken that was charged. `first_attempt_at` is its earliest comparison, if the bill has a time for it."""

    biz_token: str
    rule_id: str
    first_attempt_at: datetime | None = None


def decode_head(body: LiftedBody[S]) -> tuple[str | None, str | None]:
    """Returns the RequestId and the error code of any response. With an error code, nothing else is in it.

    Raises:
        DecodeError: it is not a response of Tencent's.
    """
    response = parse(body.skeleton, Envelope[Response]).response
    return response.request_id or None, response.error.code if response.error else None


def decode_bill(body: LiftedBody[S]) -> tuple[Sequence[BilledToken], int | None]:
    """Returns the BizTokens on a page of a bill, and the cursor of the next page.

    Raises:
        DecodeError: it is not what Tencent documents.
    """
    page = parse(body.skeleton, Envelope[BillResponse]).response
    if page.has_next_page and page.next_cursor is None:
        raise DecodeError("a bill continues without a cursor")
    tokens = [_billed_token(detail) for detail in page.we_chat_bill_details or ()]
    return tokens, page.next_cursor if page.has_next_page else None


def _billed_token(detail: BillDetail) -> BilledToken:
    instants = [instant_of(str(charge.req_time)) for charge in detail.charge_details or ()]
    return BilledToken(detail.biz_token, detail.rule_id, min((at for at in instants if at), default=None))


def decode_detect_info(body: LiftedBody[S]) -> tuple[Detection | None, Mapping[MediaKind, S]]:
    """Returns the result without media, which is None without a Text part, and the media that exist.

    Raises:
        DecodeError: it is not what Tencent documents. This says nothing about the token.
    """
    response = parse(body.skeleton, Envelope[DetectResponse]).response
    document = bytes(response.detect_info)
    if document.startswith(b'"'):
        document = parse(document, str).encode()
    elif not document:
        document = bytes(parse(body.skeleton, Envelope[msgspec.Raw]).response)
        if not parse(document, JsonObject).keys() & PARTS:
            raise DecodeError("there is no part of a result in the answer")
    info = parse(document, DetectInfo)
    detection = _detection(info.text, document, body) if isinstance(info.text, dict) else None
    return detection, {kind: body.item(text) for kind, text in _media(info) if text}


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


def _detection(text: JsonObject, document: bytes, body: LiftedBody[S]) -> Detection:
    fields, extras = _read(text, _TEXT)
    if "ErrCode" in extras:
        raise DecodeError("Text.ErrCode is not a number")
    # A reference must not be stored instead of the media item.
    if any(has_reference(name.encode() + bytes(value), body) for name, value in text.items()):
        raise DecodeError("there is a media item in Text")
    attempts, detail_extras = fields.pop("detail", ((), {}))
    if detail_extras:
        extras["Detail"] = detail_extras
    attempts += fields.pop("liveness_attempts", ())
    source = bytes(parse(document, JsonObject)["Text"]).decode()
    extras |= unmapped_fields(document, body)
    return Detection(**fields, further=extras, document=source, liveness_attempts=attempts)


_Reader = Callable[[bytes], object]


def _read(values: JsonObject, table: Mapping[str, tuple[str, _Reader]]) -> tuple[dict[str, Any], dict[str, object]]:
    """Returns our fields, and the extras: keys that `table` does not have, and values that their reader rejects."""
    fields: dict[str, Any] = {}
    extras: dict[str, object] = {}
    for name, raw in values.items():
        source = bytes(raw)
        field, read = table.get(name, ("", _ignore))
        value = read(source)
        if value is not None and field not in fields:
            fields[field] = value
        elif read is _ignore or source not in {b"null", b'""'}:
            extras[name] = parse_value(source)
    return fields, extras


def _ignore(_source: bytes) -> None:
    """Reads nothing: the reader of unknown keys."""


# Nine digits: any integer column can hold the code.
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
    return tuple(LivenessAttempt(**fields, further=extras) for fields, extras in attempts)


def _detail(source: bytes) -> tuple[tuple[LivenessAttempt, ...], dict[str, object]] | None:
    try:
        fields, extras = _read(parse(source, JsonObject), _DETAIL)
    except DecodeError:
        return None
    return fields.get("liveness_attempts", ()), extras


_ATTEMPT: Mapping[str, tuple[str, _Reader]] = {
    "ErrCode": ("err_code", _code),
    "ErrMsg": ("err_msg", _string),
    "ReqTime": ("req_time", _string),
    "IdCard": ("id_card", _string),
    "Name": ("name", _string),
    # The spelling of GetDetectInfoEnhanced.
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
