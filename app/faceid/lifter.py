"""Takes media out of the response body while it streams in; one or two kilobytes of JSON stay in memory.

Tencent sends pictures and videos as base64 inside JSON, mostly inside JSON in a JSON string. The lifter reads the bytes
once, in pieces split anywhere, and parses no JSON. It searches for the names of media, decodes the text behind them
into a sink, and inserts a reference. A name spelled in an unexpected way stays in the skeleton together with
its value, and is decoded from there.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

import pybase64

from app.faceid.payloads import DecodeError


class LiftError(DecodeError):
    """The value of a media item is not strict base64, or the body ends inside it."""


class Sink(Protocol):
    """Receives the decoded bytes of one media item."""

    def write(self, data: bytes, /) -> object:
        """Writes all of the next bytes."""
        ...


S = TypeVar("S", bound=Sink)


@dataclass(frozen=True, slots=True)
class LiftedBody(Generic[S]):
    """A body without its media. `skeleton` is the JSON that is left, `sinks` are the media by their references."""

    skeleton: bytes = field(repr=False)
    sinks: Mapping[str, S]
    open_sink: Callable[[], S] = field(repr=False)

    def item(self, text: str) -> S:
        """Returns the sink of a reference. Any other text was too short to be lifted, and is decoded into a new sink.

        Raises:
            LiftError: the text is neither a reference nor strict base64.
        """
        if text in self.sinks:
            return self.sinks[text]
        data = strict_base64(text)
        sink = self.open_sink()
        sink.write(data)
        return sink


class _Level(NamedTuple):
    """How `/`, `+` and `=` may be escaped inside a media item. `excess` are more backslashes than any spelling has."""

    spellings: Mapping[bytes, bytes]
    excess: bytes


_SIGNS = {b"/": b"/", b"u002f": b"/", b"u002F": b"/", b"u002b": b"+", b"u002B": b"+", b"u003d": b"=", b"u003D": b"="}
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
_OPENING = re.compile(
    rb'[^\\](?P<escape>\\?)"'
    rb"(?:OcrFront|OcrBack|ProcessedFrontImage|ProcessedBackImage|Avatar|BestFrame|LivenessVideo|(?P<list>BestFrames))"
    rb'(?P=escape)"%b:%b(?(list)\[%b)(?P=escape)"' % (_SPACE, _SPACE, _SPACE)
)
_OPENING_MAX = 80
# In a list: from the end of one media item to the start of the next. `escape` is missing if the piece ends earlier.
_NEXT = re.compile(rb'\\*"%b(?:\\?\Z|,%b(?:\\?\Z|(?P<escape>\\?)"))' % (_SPACE, _SPACE))


class Lifter(Generic[S]):
    """Separates the media of one body from the rest. `bytes_fed` is the size of the body so far.

    Args:
        open_sink: makes an empty sink for the next media item. The caller disposes of the sinks, including those of a
            body that turns out to be malformed.
        threshold: values of at most this many bytes stay in the skeleton; at least 1.
    """

    def __init__(self, open_sink: Callable[[], S], *, threshold: int = 4096) -> None:
        self.bytes_fed = 0
        self._open_sink = open_sink
        self._threshold = threshold
        # Random, because nothing in the body may imitate a reference.
        self._prefix = f"lifted:{secrets.token_hex(16)}:"
        self._skeleton = bytearray()
        self._sinks: dict[str, S] = {}
        self._item: _MediaDecoder | None = None
        self._in_list = False
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        """Reads the next bytes of the body, any number of them.

        Raises:
            LiftError: a media item is not strict base64. The lifter cannot be used any more.
        """
        self.bytes_fed += len(piece)
        data = self._rest + piece
        at, more = 0, True
        while more:
            at, more = self._lift(self._item, data, at) if self._item else self._scan(data, at)
        self._rest = data[at:]

    def finish(self) -> LiftedBody[S]:
        """Returns the separated body. Call it after the last byte.

        Raises:
            LiftError: the body ends inside a media item.
        """
        if self._item:
            raise LiftError("the body ends within a media item")
        return LiftedBody(bytes(self._skeleton + self._rest), self._sinks, self._open_sink)

    def _scan(self, data: bytes, at: int) -> tuple[int, bool]:
        """Searches for the next media item; returns where to continue, and whether `data` has enough for that."""
        following = _NEXT.match(data, at) if self._in_list else None
        if following and following["escape"] is None:
            return at, False
        self._in_list = following is not None
        opening = following or _OPENING.search(data, at)
        if opening is None:
            return self._keep(data, at, max(at, len(data) - _OPENING_MAX)), False
        start = opening.end()
        quote = data.find(b'"', start, start + self._threshold + 1)
        if quote < 0 and len(data) - start <= self._threshold:
            return self._keep(data, at, opening.start()), False
        self._in_list = self._in_list or opening["list"] is not None
        if quote >= 0:
            return self._keep(data, at, quote), True
        reference = f"{self._prefix}{len(self._sinks)}"
        sink = self._sinks[reference] = self._open_sink()
        self._item = _MediaDecoder(sink, _INNER if opening["escape"] else _OUTER)
        self._keep(data, at, start)
        self._skeleton += reference.encode()
        return start, True

    def _lift(self, item: "_MediaDecoder", data: bytes, at: int) -> tuple[int, bool]:
        """Decodes up to the closing quote and the backslashes that escape it; returns the same as `_scan`."""
        quote = data.find(b'"', at)
        if quote >= 0:
            content = data[at:quote].rstrip(b"\\")
            item.feed(content)
            item.close()
            self._item = None
            return at + len(content), True
        cut = _CUT_ESCAPE.search(data, max(at, len(data) - _CUT_ESCAPE_MAX))
        end = cut.start() if cut else len(data)
        item.feed(data[at:end])
        return end, False

    def _keep(self, data: bytes, at: int, end: int) -> int:
        self._skeleton += data[at:end]
        return end


class _MediaDecoder:
    """Decodes one media item into its sink."""

    def __init__(self, sink: Sink, level: _Level) -> None:
        self._sink = sink
        self._level = level
        self._carry = b""

    def feed(self, content: bytes) -> None:
        """Decodes whole groups of four, except the last one: only the last of all may be padded."""
        text = self._unescape(content)
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
            self._sink.write(strict_base64(groups))
        self._carry = text[end:]

    def close(self) -> None:
        self._sink.write(strict_base64(self._carry))

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


def strict_base64(text: bytes | memoryview | str) -> bytes:
    """Decodes base64 of the standard alphabet with padding and without any other character.

    Raises:
        LiftError: the text is anything else.
    """
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        raise LiftError("a media item is not strict base64") from None
