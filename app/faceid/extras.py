"""Fields that we do not map. Kept as they are, except media, and limited in depth and size."""

import re
from collections.abc import Mapping

from app.faceid.lifter import LiftedBody, S
from app.faceid.payloads import DecodeError, parse

_MAX_BYTES = 64 * 1024
# The code that stores a value is recursive, and Python limits recursion.
_MAX_DEPTH = 32
# As long as the values that are lifted. Base64 has no quotes.
_LONG_TEXT = re.compile(rb'[^"]{4096}')


def kept_values(sources: Mapping[str, bytes], body: LiftedBody[S]) -> dict[str, object]:
    """Returns the values of unmapped fields.

    Left out are media, everything that may be a media item (any text as long as those that are lifted), and values
    that are too large, nested too deeply or, like 1e400, no numbers for us.
    """
    kept: dict[str, object] = {}
    for name, source in sources.items():
        if len(source) > _MAX_BYTES or body.mentions(name.encode() + source) or _LONG_TEXT.search(source):
            continue
        try:
            value = parse(source, object)
        except DecodeError:
            continue
        if not _is_deeper(value, _MAX_DEPTH):
            kept[name] = value
    return kept


def without_empty(values: Mapping[str, object]) -> dict[str, object]:
    """Leaves out the values inside which everything is absent: Tencent sends whole objects of nulls and empty texts."""
    return {name: value for name, value in values.items() if not _is_empty(value)}


def _is_deeper(value: object, levels: int) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _is_deeper(child, levels - 1) for child in children)


def _is_empty(value: object) -> bool:
    if isinstance(value, dict | list):
        return all(map(_is_empty, value.values() if isinstance(value, dict) else value))
    return value is None or value == ""
