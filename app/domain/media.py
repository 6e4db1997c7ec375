"""Media items: their kinds, the row of a stored one, the content type of its first bytes, and ranges of its bytes."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from app.domain.detection import Part
from app.errors import RangeNotSatisfiableError

HEAD_BYTES = 64
"""How many of the first bytes `sniff` looks at."""

UNKNOWN = "application/octet-stream"

_RANGE = re.compile(r"bytes=([0-9]{0,20})-([0-9]{0,20})", re.IGNORECASE)

_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"ID3", "audio/mpeg"),
)
# The form type, which follows "RIFF" and four bytes of size.
_RIFF = {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo", b"WAVE": "audio/wav"}
# The major brand of an ISO base media file. Every other brand counts as MP4.
_BRANDS = (
    (b"qt  ", "video/quicktime"),
    (b"3g", "video/3gpp"),
    (b"heic", "image/heic"),
    (b"heix", "image/heic"),
    (b"mif1", "image/heif"),
    (b"avif", "image/avif"),
    (b"M4A ", "audio/mp4"),
)


class MediaKind(StrEnum):
    """The media of a result. Only GetDetectInfoEnhanced returns those after the video."""

    ID_CARD_FRONT = "id_card_front"
    ID_CARD_BACK = "id_card_back"
    BEST_FRAME = "best_frame"
    LIVENESS_VIDEO = "liveness_video"
    ID_CARD_FRONT_CUT = "id_card_front_cut"
    ID_CARD_BACK_CUT = "id_card_back_cut"
    ID_CARD_AVATAR = "id_card_avatar"
    BEST_FRAME_1 = "best_frame_1"
    BEST_FRAME_2 = "best_frame_2"
    BEST_FRAME_3 = "best_frame_3"
    BEST_FRAME_4 = "best_frame_4"
    BEST_FRAME_5 = "best_frame_5"
    BEST_FRAME_6 = "best_frame_6"
    BEST_FRAME_7 = "best_frame_7"
    BEST_FRAME_8 = "best_frame_8"
    BEST_FRAME_9 = "best_frame_9"
    BEST_FRAME_10 = "best_frame_10"
    INTENTION_VIDEO_1 = "intention_video_1"
    INTENTION_VIDEO_2 = "intention_video_2"
    INTENTION_VIDEO_3 = "intention_video_3"
    INTENTION_VIDEO_4 = "intention_video_4"
    INTENTION_VIDEO_5 = "intention_video_5"
    INTENTION_VIDEO_6 = "intention_video_6"
    INTENTION_VIDEO_7 = "intention_video_7"
    INTENTION_VIDEO_8 = "intention_video_8"
    INTENTION_VIDEO_9 = "intention_video_9"
    INTENTION_VIDEO_10 = "intention_video_10"
    INTENTION_PICTURE_1 = "intention_picture_1"
    INTENTION_PICTURE_2 = "intention_picture_2"
    INTENTION_PICTURE_3 = "intention_picture_3"
    INTENTION_PICTURE_4 = "intention_picture_4"
    INTENTION_PICTURE_5 = "intention_picture_5"
    INTENTION_PICTURE_6 = "intention_picture_6"
    INTENTION_PICTURE_7 = "intention_picture_7"
    INTENTION_PICTURE_8 = "intention_picture_8"
    INTENTION_PICTURE_9 = "intention_picture_9"
    INTENTION_PICTURE_10 = "intention_picture_10"
    INTENTION_AUDIO_1 = "intention_audio_1"
    INTENTION_AUDIO_2 = "intention_audio_2"
    INTENTION_AUDIO_3 = "intention_audio_3"
    INTENTION_AUDIO_4 = "intention_audio_4"
    INTENTION_AUDIO_5 = "intention_audio_5"
    INTENTION_AUDIO_6 = "intention_audio_6"
    INTENTION_AUDIO_7 = "intention_audio_7"
    INTENTION_AUDIO_8 = "intention_audio_8"
    INTENTION_AUDIO_9 = "intention_audio_9"
    INTENTION_AUDIO_10 = "intention_audio_10"

    @property
    def part(self) -> Part:
        """The part of a result that contains the media item. Those of the intention come with the verdict."""
        if self.startswith("intention"):
            return Part.TEXT
        if self is MediaKind.LIVENESS_VIDEO:
            return Part.VIDEO
        return Part.ID_CARD if self.startswith("id_card") else Part.BEST_FRAME


BEST_FRAMES = tuple(MediaKind(f"best_frame_{number}") for number in range(1, 11))
"""The additional frames in the order of Tencent's `BestFrames`, which holds at most ten."""

INTENTION_VIDEOS, INTENTION_PICTURES, INTENTION_AUDIOS = (
    tuple(MediaKind(f"intention_{name}_{number}") for number in range(1, 11)) for name in ("video", "picture", "audio")
)
"""The recordings of the confirmation of an intention, in Tencent's order. It has at most ten rounds."""


class UnreadableReason(StrEnum):
    """Why a media item in an answer could not be stored. With an address, it is in the customer's own bucket."""

    NOT_BASE64 = "not_base64"
    NOT_TEXT = "not_text"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class UnreadableMedia:
    """A media item that Tencent has, but that its answer contained in no readable form."""

    kind: MediaKind
    reason: UnreadableReason


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaItem:
    """One stored picture or video of `size_bytes` bytes (unencrypted).

    `object_key` names the encrypted bytes in the media store, `sha256` is their hex digest, `sealed_key` the wrapped
    key that decrypts them.
    """

    kind: MediaKind
    object_key: str
    content_type: str
    size_bytes: int
    sha256: str
    sealed_key: bytes = field(repr=False)
    stored_at: datetime


class MediaRow(NamedTuple):
    """The values of a media row that identify its object. The kind may be one that this version does not know."""

    kind: str
    object_key: str
    content_type: str
    size_bytes: int
    sha256: str


def sniff(head: bytes) -> str:
    """Returns the content type that the first bytes show; `application/octet-stream` if they show none.

    Args:
        head: the first `HEAD_BYTES` bytes, or all bytes if there are fewer.
    """
    if head[4:8] == b"ftyp":
        return _find(_BRANDS, head[8:]) or "video/mp4"
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], UNKNOWN)
    # EBML. The document type separates WebM from other Matroska files.
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "video/webm" if b"webm" in head[:HEAD_BYTES] else "video/x-matroska"
    return _find(_MAGIC, head) or UNKNOWN


def parse_range(text: str | None, size_bytes: int) -> tuple[int, int] | None:
    """Parses a Range header after RFC 9110, section 14; returns (start, stop), or None for the whole item.

    Several ranges, other units and malformed values may be ignored, and are.

    Raises:
        RangeNotSatisfiableError: the range begins after the end.
    """
    match = _RANGE.fullmatch(text) if text else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    start = int(first) if first else max(0, size_bytes - int(last))
    stop = min(size_bytes, int(last) + 1) if first and last else size_bytes
    if first and last and int(last) < int(first):
        return None
    if start >= size_bytes:
        raise RangeNotSatisfiableError("The range lies outside the media item.", size_bytes=size_bytes)
    return start, stop


def _find(table: tuple[tuple[bytes, str], ...], head: bytes) -> str | None:
    return next((content_type for magic, content_type in table if head.startswith(magic)), None)
