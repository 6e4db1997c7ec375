"""Responses of Tencent, and everything that is decoded from one."""

import base64
import io
import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

from app.domain.detection import Detection
from app.domain.media import MediaKind, UnreadableReason
from app.faceid.decode import decode_detect_info, decode_head
from app.faceid.lifter import Lifter

MEDIUM = bytes(range(256)) * 8
BASE64 = base64.b64encode(MEDIUM).decode()


class Reading(NamedTuple):
    """Everything that is decoded from one response."""

    request_id: str | None = None
    error_code: str | None = None
    detection: Detection | None = None
    media: Mapping[MediaKind, io.BytesIO] = {}
    unreadable: Mapping[MediaKind, UnreadableReason] = {}


def read(body: bytes, *, cuts: Callable[[], int] = lambda: 1000, threshold: int = 64) -> Reading:
    """Decodes a response that arrives in pieces of these sizes."""
    lifter = Lifter(io.BytesIO, threshold=threshold)
    while body:
        size = cuts()
        lifter.feed(body[:size])
        body = body[size:]
    lifted = lifter.finish()
    request_id, error_code = decode_head(lifted)
    if error_code:
        return Reading(request_id, error_code)
    info = decode_detect_info(lifted)
    return Reading(request_id, None, info.detection, info.media, info.unreadable)


def answer(info: object) -> bytes:
    """Returns a response with this result."""
    return json.dumps({"Response": {"DetectInfo": json.dumps(info), "RequestId": "r-1"}}).encode()


def media(reading: Reading) -> dict[MediaKind, bytes]:
    """Returns the contents of the media that were decoded."""
    return {kind: sink.getvalue() for kind, sink in reading.media.items()}
