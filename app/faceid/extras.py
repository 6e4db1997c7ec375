"""Fields that we do not map. Kept as they are, except media, and limited in depth and size."""

import math
from collections.abc import Mapping

import msgspec

from app.faceid.lifter import LiftedBody, S

_MAX_BYTES = 64 * 1024
# The code that stores a value is recursive, and Python limits recursion.
_MAX_DEPTH = 32
# As long as the values that are lifted.
_LONG_TEXT = 4096


def _finite(text: str) -> float:
    """Reads a decimal number, much faster than msgspec reads one with an exponent."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("the number is out of range")
    return number


_DECODER = msgspec.json.Decoder(object, float_hook=_finite)


def kept_values(sources: Mapping[str, bytes], body: LiftedBody[S]) -> dict[str, object]:
    """Returns the values of unmapped fields.

    Left out are media, everything that may be a media item (any text as long as those that are lifted), and values
    that are too large, nested too deeply or, like 1e400, no numbers for us.
    """
    kept: dict[str, object] = {}
    for name, source in sources.items():
        # Base64 has no quotes.
        longest = max(map(len, source.split(b'"'))) if len(source) <= _MAX_BYTES else _LONG_TEXT
        if longest >= _LONG_TEXT or body.mentions(name.encode() + source):
            continue
        try:
            value = _DECODER.decode(source)
        except (ValueError, RecursionError):
            continue
        # Most values need no closer look: they have fewer brackets.
        if source.count(b"[") + source.count(b"{") <= _MAX_DEPTH or not _is_deeper(value, _MAX_DEPTH):
            kept[name] = value
    return kept


def without_empty(values: Mapping[str, object]) -> dict[str, object]:
    """Leaves out the values inside which everything is absent: Tencent sends whole objects of nulls and empty texts."""
    return {name: value for name, value in values.items() if not _is_empty(value)}


def _is_deeper(value: object, levels: int) -> bool:
    level = [value]
    for _ in range(levels + 1):
        if not (inner := [node for node in level if isinstance(node, dict | list)]):
            return False
        level = [child for node in inner for child in (node.values() if isinstance(node, dict) else node)]
    return bool(level)


def _is_empty(value: object) -> bool:
    if isinstance(value, dict | list):
        return all(map(_is_empty, value.values() if isinstance(value, dict) else value))
    return value is None or value == ""
