"""Synthetic pictures and videos, valid and different for each BizToken.

The samples are drawn by `tools/make_samples.py` and have SYNTHETIC printed across them. A stamp makes the media of each
token and kind different. Decoders skip it: it is a comment segment after the start of a JPEG, or a `free` box at the
end of an MP4.
"""

import hashlib
from functools import cache, lru_cache
from importlib.resources import files

VIDEO_BYTES = 1_000_000
"""Default size of a video. Real ones have 0.5 to 6 MB."""

_JPEG_START = 2
_JPEG_COMMENT = b"\xff\xfe"
_BOX_HEADER = 8


def media_of(biz_token: str, *, video_bytes: int = VIDEO_BYTES) -> dict[str, bytes]:
    """Returns the media of a finished verification by kind. The video is padded to exactly `video_bytes`."""
    box = _free_box(_stamp(biz_token, "liveness_video"))
    return {
        **{kind: picture_of(biz_token, kind) for kind in ("id_card_front", "id_card_back", "best_frame")},
        "liveness_video": _padded_video(video_bytes - len(box)) + box,
    }


def picture_of(biz_token: str, kind: str) -> bytes:
    """Returns the JPEG of a kind: a side of the card, its `_cut` variant, the avatar, or a numbered frame.

    Kinds that share a sample, such as all best frames, differ in their stamps.
    """
    is_face = kind.startswith(("best_frame", "id_card_avatar", "intention"))
    jpeg = _sample("best_frame.jpg" if is_face else f"{kind.removesuffix('_cut')}.jpg")
    stamp = _stamp(biz_token, kind)
    segment = _JPEG_COMMENT + (len(stamp) + 2).to_bytes(2) + stamp
    return jpeg[:_JPEG_START] + segment + jpeg[_JPEG_START:]


def _stamp(biz_token: str, kind: str) -> bytes:
    return f"SYNTHETIC {hashlib.sha256(f'{kind} {biz_token}'.encode()).hexdigest()}".encode()


@lru_cache(maxsize=2)
def _padded_video(size: int) -> bytes:
    video = _sample("liveness_video.mp4")
    padding = size - len(video) - _BOX_HEADER
    return video + _free_box(bytes(padding)) if padding >= 0 else video


def _free_box(content: bytes) -> bytes:
    return (_BOX_HEADER + len(content)).to_bytes(4) + b"free" + content


@cache
def _sample(name: str) -> bytes:
    return (files("simulator") / "samples" / name).read_bytes()
