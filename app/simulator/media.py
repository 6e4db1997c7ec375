"""Pictures and a video of nobody, valid and different for each BizToken.

The samples are drawn by `tools/make_samples.py` and say SYNTHETIC across them. What sets two tokens, and two kinds
of media, apart is a stamp that decoders skip: a comment segment behind the start of a JPEG, a `free` box at the end of
an MP4.
"""

import hashlib
from functools import cache, lru_cache
from importlib.resources import files

from app.domain.detection import BEST_FRAMES, MediaKind

VIDEO_BYTES = 1_000_000
"""A liveness video has 0.5 to 6 MB."""

_START_OF_IMAGE = 2
_COMMENT = b"\xff\xfe"
_BOX_HEADER = 8


def media_of(biz_token: str, *, video_bytes: int = VIDEO_BYTES) -> dict[MediaKind, bytes]:
    """The media that everybody is told of; the video is padded to exactly `video_bytes`."""
    pictures = (MediaKind.ID_CARD_FRONT, MediaKind.ID_CARD_BACK, MediaKind.BEST_FRAME)
    box = _free_box(_stamp(biz_token, MediaKind.LIVENESS_VIDEO))
    return {
        **{kind: picture_of(biz_token, kind) for kind in pictures},
        MediaKind.LIVENESS_VIDEO: _padded_video(video_bytes - len(box)) + box,
    }


def picture_of(biz_token: str, kind: MediaKind) -> bytes:
    """A picture of any kind; those that share a sample, as all best frames do, differ in their stamps."""
    is_face = kind is MediaKind.ID_CARD_AVATAR or kind in BEST_FRAMES
    sample = MediaKind.BEST_FRAME if is_face else kind.removesuffix("_cut")
    return _with_comment(_sample(f"{sample}.jpg"), _stamp(biz_token, kind))


def _stamp(biz_token: str, kind: MediaKind) -> bytes:
    return f"SYNTHETIC {hashlib.sha256(f'{kind} {biz_token}'.encode()).hexdigest()}".encode()


def _with_comment(jpeg: bytes, comment: bytes) -> bytes:
    segment = _COMMENT + (len(comment) + 2).to_bytes(2) + comment
    return jpeg[:_START_OF_IMAGE] + segment + jpeg[_START_OF_IMAGE:]


@lru_cache(maxsize=2)
def _padded_video(size: int) -> bytes:
    video = _sample("liveness_video.mp4")
    padding = size - len(video) - _BOX_HEADER
    return video + _free_box(bytes(padding)) if padding >= 0 else video


def _free_box(content: bytes) -> bytes:
    return (_BOX_HEADER + len(content)).to_bytes(4) + b"free" + content


@cache
def _sample(name: str) -> bytes:
    return (files("app.simulator") / "samples" / name).read_bytes()
