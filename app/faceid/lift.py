"""Media out of the body while it streams in: what stays in memory is a skeleton of a kilobyte or two.

Tencent sends pictures and videos as base64 inside JSON, mostly inside JSON inside a JSON string. The lifter sees the
wire bytes only once, in pieces cut anywhere, and parses no JSON: it looks for the names of media, decodes the text
behind them into a sink, and leaves a reference in its place. A name spelled in a way that it does not know stays in the
skeleton with all that is behind it, and is read from there, as the whole body would be.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import pybase64

from app.faceid.payloads import DecodeError


class LiftError(DecodeError):
    """What stands in the place of a medium is not strict base64, or ends in the middle."""


class Sink(Protocol):
    """Where the decoded bytes of one medium go."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes, all of them."""
        ...


@dataclass(frozen=True, slots=True)
class Lifted:
    """A body without its media: `skeleton` is the JSON that is left, `sinks` has the medium behind each reference."""

    skeleton: bytes = field(repr=False)
    sinks: Mapping[str, Sink]


class _Level(NamedTuple):
    """How `/`, `+` and `=` may be escaped in the bytes of a medium; `excess` are more backslashes than that takes."""

    spellings: Mapping[bytes, bytes]
    excess: bytes


_SIGNS = {b"/": b"/", b"u002f": b"/", b"u002F": b"/", b"u002b": b"+", b"u002B": b"+", b"u003d": b"=", b"u003D": b"="}
_OUTER = _Level({b"\\" + sign: char for sign, char in _SIGNS.items()}, excess=b"\\" * 2)
# Two levels of JSON: `\` is the outer one's escape, `\\` the inner one's, and `\\\` is both, which only the slash may
# have, because `\+` and `\=` are no JSON. The longest come first, so that no replacement leaves half of another.
_INNER = _Level(
    {
        run + sign: char
        for sign, char in _SIGNS.items()
        for run in (b"\\\\\\", b"\\\\", b"\\")[0 if char == b"/" else 1 :]
    },
    excess=b"\\" * 4,
)
# The last backslashes of a piece, whose other half may be in the next: three and `u002` at most.
_CUT_ESCAPE = re.compile(rb"\\+(?:u[0-9A-Fa-f]{0,3})?\Z")
_CUT_ESCAPE_MAX = 7

# The byte in front belongs to the match, because a backslash there makes the key the end of a longer string, and a
# piece may be cut between the two. Space is bounded so that a match is, too.
_SPACE = rb"(?:[ \t\r\n]|\\[trn]){0,8}"
_OPENING = re.compile(
    rb'[^\\](?P<escape>\\?)"'
    rb"(?:OcrFront|OcrBack|ProcessedFrontImage|ProcessedBackImage|Avatar|BestFrame|LivenessVideo|(?P<list>BestFrames))"
    rb'(?P=escape)"%b:%b(?(list)\[%b)(?P=escape)"' % (_SPACE, _SPACE, _SPACE)
)
_OPENING_MAX = 80
# In a list, from the end of one medium to the beginning of the next, which is not yet there where the piece ends first.
_NEXT = re.compile(rb'\\*"%b(?:\\?\Z|,%b(?:\\?\Z|(?P<escape>\\?)"))' % (_SPACE, _SPACE))


class Lifter:
    """Takes one body apart.

    Args:
        open_sink: makes an empty sink for the next medium; whoever passes it in also disposes of the sinks, those of a
            body that turned out to be bad included.
        threshold: values of at most so many bytes stay in the skeleton; at least 1.
    """

    def __init__(self, open_sink: Callable[[], Sink], *, threshold: int = 4096) -> None:
        self._open_sink = open_sink
        self._threshold = threshold
        self._prefix = f"lifted:{secrets.token_hex(16)}:"  # nothing in the body can pretend to be a reference
        self._skeleton = bytearray()
        self._sinks: dict[str, Sink] = {}
        self._run: _Run | None = None
        self._in_list = False
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body, as many as there are.

        Raises:
            LiftError: a medium is not strict base64. The lifter is of no use afterwards.
        """
        data = self._rest + chunk
        at, more = 0, True
        while more:
            at, more = self._lift(self._run, data, at) if self._run else self._scan(data, at)
        self._rest = data[at:]

    def finish(self) -> Lifted:
        """What was taken apart, after the last byte of the body.

        Raises:
            LiftError: the body ends within a medium.
        """
        if self._run:
            raise LiftError("the body ends within a medium")
        return Lifted(bytes(self._skeleton + self._rest), self._sinks)

    def _scan(self, data: bytes, at: int) -> tuple[int, bool]:
        """Look for the next medium; tells up to where `data` is done, and whether to go on with it now."""
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
        self._run = _Run(sink, _INNER if opening["escape"] else _OUTER)
        self._keep(data, at, start)
        self._skeleton += reference.encode()
        return start, True

    def _lift(self, run: "_Run", data: bytes, at: int) -> tuple[int, bool]:
        """Decode up to the closing quote, whose own backslashes are no content; tells what `_scan` tells."""
        quote = data.find(b'"', at)
        if quote >= 0:
            content = data[at:quote].rstrip(b"\\")
            run.feed(content)
            run.close()
            self._run = None
            return at + len(content), True
        cut = _CUT_ESCAPE.search(data, max(at, len(data) - _CUT_ESCAPE_MAX))
        end = cut.start() if cut else len(data)
        run.feed(data[at:end])
        return end, False

    def _keep(self, data: bytes, at: int, end: int) -> int:
        self._skeleton += data[at:end]
        return end


class _Run:
    """One medium on its way into its sink."""

    def __init__(self, sink: Sink, level: _Level) -> None:
        self._sink = sink
        self._level = level
        self._carry = b""

    def feed(self, content: bytes) -> None:
        """Decode whole groups of four, but hold the last one back: it alone may be padded."""
        text = self._unescape(content)
        start = -len(self._carry) % 4  # what is missing in its group
        self._carry += text[:start]
        if len(text) <= start:
            return
        end = start + (len(text) - start - 1) // 4 * 4
        for groups in (self._carry, memoryview(text)[start:end]):  # by themselves, since joining them would copy all
            if groups[-1:] == b"=":
                raise LiftError("a medium goes on after its padding")
            self._sink.write(strict_base64(groups))
        self._carry = text[end:]

    def close(self) -> None:
        self._sink.write(strict_base64(self._carry))

    def _unescape(self, content: bytes) -> bytes:
        """Only known spellings are replaced; a backslash that is left over is no base64 and fails there."""
        if b"\\" not in content:
            return content
        if self._level.excess in content:
            raise LiftError("a medium has an escape that stands for no base64")
        for spelling, char in self._level.spellings.items():
            content = content.replace(spelling, char)
            if b"\\" not in content:
                break
        return content


def strict_base64(text: bytes | memoryview | str) -> bytes:
    """The bytes that `text` stands for: the standard alphabet, padded, and not a character more.

    Raises:
        LiftError: it is anything else.
    """
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        raise LiftError("a medium is not strict base64") from None
