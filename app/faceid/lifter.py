"""Takes media out of the response body while it streams in; one or two kilobytes of JSON stay in memory.

Tencent sends pictures and videos as base64 inside JSON, mostly inside JSON in a JSON string. The lifter reads the bytes
once, in pieces split anywhere, and parses no JSON. It searches for the names of media, decodes the text behind them
into a sink, and inserts a reference. A name spelled in an unexpected way stays in the skeleton together with
its value, and is decoded from there.

Base64 may have line breaks, a `data:` prefix, the alphabet of URLs and no padding. A media item that is not base64
costs only itself: its reference then leads to the error.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec
import pybase64

from app.faceid.payloads import DecodeError, OversizedError

MAX_SKELETON = 2**20
"""Bytes of an answer without its media, by default. Real ones have a few thousand."""

# The work of parsing grows with the number of these signs. Real answers have a few hundred.
_SIGNS_OF_WORK = (b'"', b",", b"\\", b"[", b"{")
_BYTES_PER_SIGN = 32
_MAX_MEDIA = 128


class LiftError(ValueError):
    """The value of a media item is not base64."""


class Sink(Protocol):
    """Receives the decoded bytes of one media item."""

    def write(self, data: bytes, /) -> object:
        """Writes all of the next bytes."""
        ...


S = TypeVar("S", bound=Sink)


@dataclass(frozen=True, slots=True)
class LiftedBody(Generic[S]):
    """A body without its media. `skeleton` is the JSON that is left, `sinks` are the media by their references.

    A reference that is not in `sinks` belongs to a media item that is not base64. All references begin with `prefix`.
    """

    skeleton: bytes = field(repr=False)
    sinks: Mapping[str, S]
    open_sink: Callable[[], S] = field(repr=False)
    prefix: str = field(repr=False)

    def item(self, text: str) -> S:
        """Returns the sink of a reference. Any other text was too short to be lifted, and is decoded into a new sink.

        Raises:
            LiftError: the media item is not base64.
        """
        if text in self.sinks:
            return self.sinks[text]
        decoder = _MediaDecoder(self.open_sink(), _OUTER)
        decoder.feed(msgspec.json.encode(text)[1:-1])
        return decoder.close()

    def mentions(self, source: bytes) -> bool:
        """Returns whether a media item was lifted out of this JSON."""
        return self.prefix.encode() in source

    def without_references(self, source: bytes) -> bytes:
        """Returns this JSON with an empty text for each reference."""
        own = self.prefix.encode()
        return _REFERENCE.sub(lambda found: b"" if found[0].startswith(own) else found[0], source)


# The digits in the middle are random, so a foreign answer cannot name a media item.
_REFERENCE = re.compile(rb"lifted:[0-9a-f]{32}:[0-9]+")


class _Level(NamedTuple):
    """How `/`, `+`, `=` and line breaks may be escaped. `excess` are more backslashes than any spelling has."""

    spellings: Mapping[bytes, bytes]
    excess: bytes


# Line breaks are no content.
_SIGNS = {b"/": b"/", b"n": b"", b"r": b""}
_SIGNS |= {b"u002f": b"/", b"u002F": b"/", b"u002b": b"+", b"u002B": b"+", b"u003d": b"=", b"u003D": b"="}
_SIGNS |= dict.fromkeys((b"u000a", b"u000A", b"u000d", b"u000D"), b"")
_OUTER = _Level({b"\\" + sign: char for sign, char in _SIGNS.items()}, excess=b"\\" * 2)
# Two levels of JSON: `\` is an escape of the outer level, `\\` of the inner one, and `\\\` of both. Only the slash may
# have the last, because `\+` and `\=` are not JSON. The longest spellings come first: otherwise replacing one would
# leave half of another.
_INNER = _Level(
    {
        run + sign: char
        for sign, char in _SIGNS.items()
        for run in (b"\\\\\\", b"\\\\", b"\\")[0 if char == b"/" else 1 :]
    },
    excess=b"\\" * 4,
)
# An escape at the end of a piece may continue in the next one: three backslashes and `u002` at most.
_CUT_ESCAPE = re.compile(rb"\\+(?:u[0-9A-Fa-f]{0,3})?\Z")
_CUT_ESCAPE_MAX = 7

# The byte in front belongs to the match: a backslash there would mean that the key is the end of a longer string, and
# a piece may end between the two. White space is bounded, and therefore the length of a match.
_SPACE = rb"(?:[ \t\r\n]|\\[trn]){0,8}"
# Media of a list that are missing, in front of one that is not.
_NULLS = rb"(?:null%b,%b){0,16}" % (_SPACE, _SPACE)
_OPENING = re.compile(
    rb'[^\\](?P<escape>\\?)"'
    rb"(?:OcrFront|OcrBack|ProcessedFrontImage|ProcessedBackImage|Avatar|BestFrame|LivenessVideo|Video"
    rb"|IntentionVerifyVideo|IntentionVerifyBestFrame|IntentionVerifyAudio|(?P<list>BestFrames|ScreenShot|Audios))"
    rb'(?P=escape)"%b:%b(?(list)\[%b%b)(?P=escape)"' % (_SPACE, _SPACE, _SPACE, _NULLS)
)
# In a list: from the end of one media item to the start of the next.
_NEXT = re.compile(rb'\\*"%b,%b%b(?P<escape>\\?)"' % (_SPACE, _SPACE, _NULLS))
# No match of the two is longer. The sixteen nulls have at most 37 bytes each.
_MATCH_MAX = 16 * 37 + 100


# `data:image/jpeg;base64,`: unescaped, and in front of the base64.
_DATA_PREFIX = re.compile(rb"\Adata:[\w.+/-]{0,64}(?:;[\w.+=-]{1,32}){0,2};base64,")
_DATA_PREFIX_MAX = 160
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


class Lifter(Generic[S]):
    """Separates the media of one body from the rest. `bytes_fed` is the size of the body so far.

    Args:
        open_sink: makes an empty sink for the next media item. The caller disposes of the sinks, including those of a
            body that turns out to be malformed and those of media that are not base64.
        threshold: values of at most this many bytes stay in the skeleton; at least 1.
        max_skeleton: how large the body without its media may be.
    """

    def __init__(self, open_sink: Callable[[], S], *, threshold: int = 4096, max_skeleton: int = MAX_SKELETON) -> None:
        self.bytes_fed = 0
        self._open_sink = open_sink
        self._threshold = threshold
        self._max_skeleton = max_skeleton
        # Random, because nothing in the body may imitate a reference.
        self._prefix = f"lifted:{secrets.token_hex(16)}:"
        self._skeleton = bytearray()
        self._signs = 0
        self._media = 0
        self._sinks: dict[str, S] = {}
        self._item: _MediaDecoder[S] | None = None
        self._reference = ""
        self._in_list = False
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        """Reads the next bytes of the body, any number of them.

        Raises:
            OversizedError: the body without its media is too large. The lifter cannot be used any more.
        """
        self.bytes_fed += len(piece)
        self._read(self._rest + piece, is_last=False)

    def finish(self) -> LiftedBody[S]:
        """Returns the separated body. Call it after the last byte.

        Raises:
            DecodeError: the body ends inside a media item, or is too large without its media.
        """
        self._read(self._rest, is_last=True)
        if self._item:
            raise DecodeError("the body ends within a media item")
        self._keep(self._rest, 0, len(self._rest))
        return LiftedBody(bytes(self._skeleton), self._sinks, self._open_sink, self._prefix)

    def _read(self, data: bytes, *, is_last: bool) -> None:
        at, more = 0, True
        while more:
            at, more = self._lift(self._item, data, at) if self._item else self._scan(data, at, is_last=is_last)
        self._rest = data[at:]

    def _scan(self, data: bytes, at: int, *, is_last: bool) -> tuple[int, bool]:
        """Searches for the next media item; returns where to continue, and whether `data` has enough for that."""
        if self._in_list and not is_last and len(data) - at < _MATCH_MAX:
            return at, False
        following = _NEXT.match(data, at) if self._in_list else None
        self._in_list = following is not None
        opening = following or _OPENING.search(data, at)
        if opening is None:
            return self._keep(data, at, max(at, len(data) - _MATCH_MAX)), False
        start = opening.end()
        quote = data.find(b'"', start, start + self._threshold + 1)
        if quote < 0 and len(data) - start <= self._threshold:
            return self._keep(data, at, opening.start()), False
        self._in_list = self._in_list or opening["list"] is not None
        self._media += 1
        if self._media > _MAX_MEDIA:
            raise OversizedError("the answer has too many media")
        if quote >= 0:
            return self._keep(data, at, quote), True
        self._reference = f"{self._prefix}{self._media}"
        self._item = _MediaDecoder(self._open_sink(), _INNER if opening["escape"] else _OUTER)
        self._keep(data, at, start)
        self._skeleton += self._reference.encode()
        return start, True

    def _lift(self, item: "_MediaDecoder[S]", data: bytes, at: int) -> tuple[int, bool]:
        """Decodes up to the closing quote and the backslashes that escape it; returns the same as `_scan`."""
        quote = data.find(b'"', at)
        if quote >= 0:
            content = data[at:quote].rstrip(b"\\")
            item.feed(content)
            with suppress(LiftError):
                self._sinks[self._reference] = item.close()
            self._item = None
            return at + len(content), True
        cut = _CUT_ESCAPE.search(data, max(at, len(data) - _CUT_ESCAPE_MAX))
        end = cut.start() if cut else len(data)
        item.feed(data[at:end])
        return end, False

    def _keep(self, data: bytes, at: int, end: int) -> int:
        kept = data[at:end]
        self._skeleton += kept
        self._signs += sum(map(kept.count, _SIGNS_OF_WORK))
        if max(len(self._skeleton), self._signs * _BYTES_PER_SIGN) > self._max_skeleton:
            raise OversizedError("the answer is too large without its media")
        return end


class _MediaDecoder(Generic[S]):
    """Decodes one media item into its sink. After an error it only skips the rest."""

    def __init__(self, sink: S, level: _Level) -> None:
        self._sink = sink
        self._level = level
        self._is_start = True
        self._is_broken = False
        self._carry = b""

    def feed(self, content: bytes) -> None:
        """Decodes the next bytes, which end within no escape."""
        if self._is_broken:
            return
        try:
            self._decode(self._unescape(content))
        except LiftError:
            self._is_broken = True
            self._carry = b""

    def close(self) -> S:
        """Returns the sink.

        Raises:
            LiftError: the media item is not base64.
        """
        last = _DATA_PREFIX.sub(b"", self._carry) if self._is_start else self._carry
        if self._is_broken or not last:
            raise LiftError("a media item is not base64")
        self._write(last if last.endswith(b"=") else last + b"=" * (-len(last) % 4))
        return self._sink

    def _decode(self, text: bytes) -> None:
        """Decodes whole groups of four, except the last one: only the last of all may be padded."""
        if self._is_start:
            self._carry += text
            if len(self._carry) < _DATA_PREFIX_MAX:
                return
            text, self._carry, self._is_start = _DATA_PREFIX.sub(b"", self._carry), b"", False
        # The characters that the held back group lacks.
        start = -len(self._carry) % 4
        self._carry += text[:start]
        if len(text) <= start:
            return
        end = start + (len(text) - start - 1) // 4 * 4
        # One after the other: joining them would copy everything.
        for groups in (self._carry, memoryview(text)[start:end]):
            if groups[-1:] == b"=":
                raise LiftError("a media item continues after its padding")
            self._write(groups)
        self._carry = text[end:]

    def _write(self, groups: bytes | memoryview) -> None:
        try:
            data = pybase64.b64decode(groups, validate=True)
        except ValueError:
            data = _decode_url_safe(bytes(groups))
        self._sink.write(data)

    def _unescape(self, content: bytes) -> bytes:
        """Replaces the known spellings. A backslash that is left over is not base64 and fails there."""
        if b"\\" not in content:
            return content
        if self._level.excess in content:
            raise LiftError("a media item has an escape that is not base64")
        for spelling, char in self._level.spellings.items():
            content = content.replace(spelling, char)
            if b"\\" not in content:
                break
        return content


def _decode_url_safe(groups: bytes) -> bytes:
    try:
        return pybase64.b64decode(groups.translate(_URL_SAFE), validate=True)
    except ValueError:
        raise LiftError("a media item is not base64") from None
