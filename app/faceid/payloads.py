"""The shape of Tencent's answers, in Tencent's spelling, and the one place where JSON from outside is parsed."""

import re
from typing import Annotated, Generic, Literal, TypeVar

import msgspec

T = TypeVar("T")


class DecodeError(ValueError):
    """The body is not what Tencent documents; the message never carries anything of its content."""


JsonObject = dict[str, msgspec.Raw]


class Error(msgspec.Struct, rename="pascal"):
    """Why Tencent did not do what was asked."""

    code: str
    message: str = ""


class Response(msgspec.Struct, rename="pascal"):
    """What every answer carries."""

    request_id: str | None = None
    error: Error | None = None


class DetectResponse(Response):
    """GetDetectInfo's answer, a JSON document in a string, or the object itself.

    GetDetectInfoEnhanced has no `detect_info` (which is then empty): the whole response is the object.
    """

    detect_info: msgspec.Raw = msgspec.Raw()


class ChargeDetail(msgspec.Struct, rename="pascal"):
    """One comparison on a bill; what it says of the person is of no interest here."""

    req_time: str | int | None = None


class BillDetail(msgspec.Struct, rename="pascal"):
    """One BizToken on a bill, with its comparisons."""

    biz_token: Annotated[str, msgspec.Meta(min_length=1)]
    rule_id: str = ""
    charge_details: list[ChargeDetail] | None = None


class BillResponse(Response):
    """GetWeChatBillDetails' answer: a page of one day's bill. Without an error, `has_next_page` is always there."""

    has_next_page: bool | None = None
    next_cursor: int | None = None
    we_chat_bill_details: list[BillDetail] | None = None


class Envelope(msgspec.Struct, Generic[T], rename="pascal"):
    """The whole body."""

    response: T


class IdCardData(msgspec.Struct, rename="pascal"):
    """Both sides of the ID card, as they were taken and cut out of that, and the face on it."""

    ocr_front: str | None = None
    ocr_back: str | None = None
    processed_front_image: str | None = None
    processed_back_image: str | None = None
    avatar: str | None = None


class BestFrame(msgspec.Struct, rename="pascal"):
    """The best picture of the face, and some more out of the video."""

    best_frame: str | None = None
    best_frames: list[str | None] | Literal[""] | None = None


class VideoData(msgspec.Struct, rename="pascal"):
    """The video of the liveness check."""

    liveness_video: str | None = None


class DetectInfo(msgspec.Struct, rename="pascal"):
    """The result. A part that was not asked for, or does not exist, is missing, null or empty."""

    text: JsonObject | Literal[""] | None = None
    id_card_data: IdCardData | Literal[""] | None = None
    best_frame: BestFrame | Literal[""] | None = None
    video_data: VideoData | Literal[""] | None = None


# An escape that is fine (group 1), or one of a character that no store takes: NUL, and half of a surrogate pair.
_ESCAPE = re.compile(
    rb"(\\[^u]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})"
)


def parse(document: bytes, shape: type[T]) -> T:
    """A JSON document as a value of `shape`, every NUL and lone surrogate in it replaced by U+FFFD.

    Raises:
        DecodeError: it is no JSON, nested too deeply, or of another shape. msgspec's own message may quote content.
    """
    try:
        return msgspec.json.decode(_ESCAPE.sub(lambda match: match[1] or rb"\ufffd", document), type=shape)
    except (ValueError, RecursionError):
        raise DecodeError("the answer is not what Tencent documents") from None
