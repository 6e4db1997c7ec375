"""Reads JSON from outside: whole documents strictly, and single values in the spellings of all back ends.

PHP sends `[]` for an object or nothing, and numbers as text. Java sends `1.0` for 1, and Go sends empty values for
missing ones. A value that no reader understands costs only its field.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

JsonObject = dict[str, msgspec.Raw]


class DecodeError(ValueError):
    """The body is not what Tencent documents. The message quotes nothing of it."""


class OversizedError(DecodeError):
    """The body is larger, or has more parts, than any answer of Tencent's."""


# A valid escape (group 1), or one of a character that no database accepts: NUL, or half of a surrogate pair.
# It begins with the backslash, which the regular expression engine then searches for at the speed of memory.
_ESCAPE = re.compile(
    rb"\\(?:([^u]|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2}))"
)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def cleaned(document: bytes) -> bytes:
    """Returns a JSON document without what no database accepts: malformed UTF-8, NULs and lone surrogates.

    Each becomes U+FFFD. Values inside a cleaned document are clean.
    """
    document = document.removeprefix(_BYTE_ORDER_MARK).decode(errors="replace").encode()
    return _ESCAPE.sub(lambda match: match[0] if match[1] else rb"\ufffd", document)


def parse(document: bytes, shape: type[T]) -> T:
    """Parses a cleaned JSON document as `shape`.

    Raises:
        DecodeError: it is not JSON, is nested too deeply, or has another shape.
    """
    try:
        return msgspec.json.decode(document, type=shape)
    except (ValueError, RecursionError):
        # msgspec's own message may quote content.
        raise DecodeError("the answer is not what Tencent documents") from None


# Readers of one value: they return None for an absent value and for one that they do not understand.
Reader = Callable[[bytes], object]

_ABSENT = re.compile(rb'null|""|\[\s*\]|\{\s*\}')
_NUMBER = re.compile(rb'("?) *([+-]?[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?) *\1')
# Every JSON reader represents smaller integers exactly.
_CODE_LIMIT = 10**15
_MAX_STRING = 8192
_MAX_LINE = 256
# Control characters, and those that change the direction or the lines of a log.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def is_absent(source: bytes) -> bool:
    """Returns whether a value is null or empty."""
    return _ABSENT.fullmatch(source) is not None


def code(source: bytes) -> int | None:
    """Reads a whole number: `17`, `"17"`, `17.0` or `1.7E1`. A boolean is none."""
    match = _NUMBER.fullmatch(source)
    number = Decimal(match[2].decode()) if match else None
    if number is None or abs(number) >= _CODE_LIMIT or number != int(number):
        return None
    return int(number)


def string(source: bytes) -> str | None:
    """Reads a text of at most 8,192 characters, or a number as text."""
    text = parse(source, str) if source.startswith(b'"') else source.decode()
    if source[0] not in b'"-0123456789' or len(text) > _MAX_STRING:
        return None
    return text or None


def line(source: bytes) -> str | None:
    """Reads a message: at most 256 characters, with U+FFFD for each control character."""
    text = string(source)
    return text and _CONTROLS.sub("\ufffd", text[:_MAX_LINE])


def record(source: bytes) -> JsonObject | None:
    """Reads an object."""
    return parse(source, JsonObject) if source.startswith(b"{") else None


def elements(source: bytes) -> Sequence[bytes] | None:
    """Reads a list, or PHP's spelling of one: an object with numbers for keys."""
    if source.startswith(b"["):
        return [bytes(raw) for raw in parse(source, list[msgspec.Raw])]
    values = record(source) or {}
    return [bytes(raw) for raw in values.values()] if values and all(key.isdecimal() for key in values) else None


def read_fields(values: JsonObject, table: Mapping[str, tuple[str, Reader]]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Returns our fields, and the sources of the rest: unknown keys, and values that their reader does not understand.

    The first of two spellings of a field counts. Absent values of known keys are left out.
    """
    fields: dict[str, Any] = {}
    rest: dict[str, bytes] = {}
    for name, raw in values.items():
        source = bytes(raw)
        field, read = table.get(name, ("", None))
        value = read(source) if read else None
        if value is not None and field not in fields:
            fields[field] = value
        elif read is None or not is_absent(source):
            rest[name] = source
    return fields, rest
