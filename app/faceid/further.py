"""What an answer says that we have no name for: kept as it came, but never a medium and never without bounds."""

import re
from collections.abc import Container

import msgspec

from app.faceid.lift import Lifted
from app.faceid.payloads import BestFrame, DecodeError, DetectInfo, IdCardData, JsonObject, VideoData, parse

_DEEPEST = 32
# As long as what is lifted; in base64 there is no quote.
_LONG = re.compile(rb'[^"]{4096}')


def _keys(part: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(part))


PARTS = _keys(DetectInfo)
_MEDIA = {"IdCardData": _keys(IdCardData), "BestFrame": _keys(BestFrame), "VideoData": _keys(VideoData)}


def beside(document: bytes, lifted: Lifted) -> dict[str, object]:
    """What is neither text nor media, under the names of Tencent's objects: `{"IdCardData": {"WarnInfos": [-9103]}}`.

    Left out is what is empty, and what may be a medium: a text as long as those that are lifted.

    Raises:
        DecodeError: it is nested too deeply.
    """
    info = parse(document, JsonObject)
    parts = {
        name: _left(parse(source, JsonObject), keys, lifted)
        for name, keys in _MEDIA.items()
        if (source := bytes(info.get(name, msgspec.Raw()))).startswith(b"{")
    }
    others = _left(info, PARTS | {"Error", "RequestId"}, lifted)
    return others | {name: left for name, left in parts.items() if left}


def refers(source: bytes, lifted: Lifted) -> bool:
    """Whether something was lifted out of this JSON."""
    return any(reference.encode() in source for reference in lifted.sinks)


def plain(source: bytes) -> object:
    """The value of this JSON.

    Raises:
        DecodeError: it is nested more deeply than what keeps it can walk down: Python's own recursion is limited.
    """
    value = parse(source, object)
    _check_depth(value, _DEEPEST)
    return value


def _check_depth(value: object, levels: int) -> None:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        if levels == 0:
            raise DecodeError("a value is nested too deeply")
        _check_depth(child, levels - 1)


def _left(values: JsonObject, known: Container[str], lifted: Lifted) -> dict[str, object]:
    sources = {name: bytes(raw) for name, raw in values.items() if name not in known}
    kept = {
        name: plain(source)
        for name, source in sources.items()
        if not refers(name.encode() + source, lifted) and not _LONG.search(source)
    }
    return {name: value for name, value in kept.items() if not _is_empty(value)}


def _is_empty(value: object) -> bool:
    """Whether there is nothing but absence in it: Tencent sends whole objects of nulls, empty texts and lists."""
    if isinstance(value, dict | list):
        return all(map(_is_empty, value.values() if isinstance(value, dict) else value))
    return value is None or value == ""
