"""Tencent's response bodies in Tencent's spelling, and the only function that parses JSON from outside."""

import re
from typing import Annotated, Generic, Literal, TypeVar

import msgspec

T = TypeVar("T")


class DecodeError(ValueError):
    """The body is not what Tencent documents. The message quotes nothing of it."""


JsonObject = dict[str, msgspec.Raw]


class Error(msgspec.Struct, rename="pascal"):
    """The error of a response. Its message may quote the request, so it is not read."""

    code: Annotated[str, msgspec.Meta(min_length=1)]


class Response(msgspec.Struct, rename="pascal"):
    """The fields of every response."""

    request_id: str | None = None
    error: Error | None = None


class DetectResponse(msgspec.Struct, rename="pascal"):
    """The response of GetDetectInfo: a JSON document in a string, or the object itself.

    GetDetectInfoEnhanced has no `detect_info`, which is then empty: the whole response is the object.
    """

    detect_info: msgspec.Raw = msgspec.Raw()


class ChargeDetail(msgspec.Struct, rename="pascal"):
    """One comparison on a bill. Its personal data is not read."""

    req_time: str | int | None = None


class BillDetail(msgspec.Struct, rename="pascal"):
    """One BizToken on a bill, with its comparisons."""

    biz_token: Annotated[str, msgspec.Meta(min_length=1)]
    rule_id: str = ""
    charge_details: list[ChargeDetail] | None = None


class BillResponse(msgspec.Struct, rename="pascal"):
    """The response of GetWeChatBillDetails: a page of one day's bill."""

    has_next_page: bool
    next_cursor: int | None = None
    we_chat_bill_details: list[BillDetail] | None = None


class Envelope(msgspec.Struct, Generic[T], rename="pascal"):
    """The whole body."""

    response: T


class IdCardData(msgspec.Struct, rename="pascal"):
    """Both sides of the ID card as photographed and cropped, and the portrait on it."""

    ocr_front: str | None = None
    ocr_back: str | None = None
    processed_front_image: str | None = None
    processed_back_image: str | None = None
    avatar: str | None = None


class BestFrame(msgspec.Struct, rename="pascal"):
    """The best picture of the face, and further frames of the video."""

    best_frame: str | None = None
    best_frames: list[str | None] | Literal[""] | None = None


class VideoData(msgspec.Struct, rename="pascal"):
    """The video of the liveness check."""

    liveness_video: str | None = None


class DetectInfo(msgspec.Struct, rename="pascal"):
    """The result. A part that was not requested, or does not exist, is missing, null or empty."""

    text: JsonObject | Literal[""] | None = None
    id_card_data: IdCardData | Literal[""] | None = None
    best_frame: BestFrame | Literal[""] | None = None
    video_data: VideoData | Literal[""] | None = None


# A valid escape (group 1), or one of a character that no database accepts: NUL, or half of a surrogate pair.
_ESCAPE = re.compile(
    rb"(\\[^u]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})"
)


def parse(document: bytes, shape: type[T]) -> T:
    """Parses a JSON document as `shape`, with every NUL and lone surrogate replaced by U+FFFD.

    Raises:
        DecodeError: it is not JSON, is nested too deeply, or has another shape.
    """
    try:
        return msgspec.json.decode(_ESCAPE.sub(lambda match: match[1] or rb"\ufffd", document), type=shape)
    except (ValueError, RecursionError):
        # msgspec's own message may quote content.
        raise DecodeError("the answer is not what Tencent documents") from None
