"""Fields that we do not map. Kept as they are, except media, and limited in depth and size."""

import re
from collections.abc import Container

import msgspec

from app.faceid.lifter import LiftedBody, S
from app.faceid.payloads import BestFrame, DecodeError, DetectInfo, IdCardData, JsonObject, VideoData, parse

_MAX_DEPTH = 32
# As long as the values that are lifted. Base64 has no quotes.
_LONG_TEXT = re.compile(rb'[^"]{4096}')


def _keys(part: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(part))


PARTS = _keys(DetectInfo)
_MAPPED = {"IdCardData": _keys(IdCardData), "BestFrame": _keys(BestFrame), "VideoData": _keys(VideoData)}


def unmapped_fields(document: bytes, body: LiftedBody[S]) -> dict[str, object]:
    """Returns the unmapped fields outside `Text` by Tencent's names: `{"IdCardData": {"WarnInfos": [-9103]}}`.

    Empty values are left out, and so is everything that may be media: any text as long as those that are lifted.

    Raises:
        DecodeError: a value is nested too deeply.
    """
    info = parse(document, JsonObject)
    parts = {
        name: _unmapped(parse(source, JsonObject), keys, body)
        for name, keys in _MAPPED.items()
        if (source := bytes(info.get(name, msgspec.Raw()))).startswith(b"{")
    }
    others = _unmapped(info, PARTS | {"Error", "RequestId"}, body)
    return others | {name: fields for name, fields in parts.items() if fields}


def has_reference(source: bytes, body: LiftedBody[S]) -> bool:
    """Returns whether a media item was lifted out of this JSON."""
    return any(reference.encode() in source for reference in body.sinks)


def parse_value(source: bytes) -> object:
    """Returns the value of this JSON.

    Raises:
        DecodeError: it is nested too deeply. The code that stores it is recursive, and Python limits recursion.
    """
    value = parse(source, object)
    _check_depth(value, _MAX_DEPTH)
    return value


def _check_depth(value: object, levels: int) -> None:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        if levels == 0:
            raise DecodeError("a value is nested too deeply")
        _check_depth(child, levels - 1)


def _unmapped(values: JsonObject, mapped: Container[str], body: LiftedBody[S]) -> dict[str, object]:
    sources = {name: bytes(raw) for name, raw in values.items() if name not in mapped}
    kept = {
        name: parse_value(source)
        for name, source in sources.items()
        if not has_reference(name.encode() + source, body) and not _LONG_TEXT.search(source)
    }
    return {name: value for name, value in kept.items() if not _is_empty(value)}


def _is_empty(value: object) -> bool:
    """Returns whether all values inside are absent: Tencent sends whole objects of nulls, empty texts and lists."""
    if isinstance(value, dict | list):
        return all(map(_is_empty, value.values() if isinstance(value, dict) else value))
    return value is None or value == ""
