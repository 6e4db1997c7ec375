"""Content types by magic bytes, the part of each kind, and ranges of bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.detection import Part
from app.domain.media import HEAD_BYTES, MediaKind, parse_range, sniff
from app.errors import RangeNotSatisfiableError

HEADS = [
    pytest.param(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", "image/jpeg", id="jpeg"),
    pytest.param(b"\xff\xd8\xff\xe1\x1f\xfeExif\x00", "image/jpeg", id="jpeg of a camera"),
    pytest.param(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "image/png", id="png"),
    pytest.param(b"GIF87a\x01\x00\x01\x00", "image/gif", id="gif 87"),
    pytest.param(b"GIF89a\x01\x00\x01\x00", "image/gif", id="gif 89"),
    pytest.param(b"BM\x46\x00\x00\x00\x00\x00", "image/bmp", id="bmp"),
    pytest.param(b"RIFF\x24\x00\x00\x00WEBPVP8 ", "image/webp", id="webp"),
    pytest.param(b"RIFF\x24\x00\x00\x00AVI LIST", "video/x-msvideo", id="avi"),
    pytest.param(b"RIFF\x24\x00\x00\x00WAVEfmt ", "audio/wav", id="wave"),
    pytest.param(b"RIFF\x24\x00\x00\x00CDDAfmt ", "application/octet-stream", id="another riff"),
    pytest.param(b"ID3\x04\x00\x00", "audio/mpeg", id="mp3"),
    pytest.param(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "image/heic", id="heic"),
    pytest.param(b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00", "image/avif", id="avif"),
    pytest.param(b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00", "video/mp4", id="mp4"),
    pytest.param(b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00", "video/mp4", id="mp4 version 2"),
    pytest.param(b"\x00\x00\x00\x14ftypqt  \x00\x00\x00\x00", "video/quicktime", id="quicktime"),
    pytest.param(b"\x00\x00\x00\x18ftyp3gp5\x00\x00\x01\x00", "video/3gpp", id="3gp"),
    pytest.param(b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webmB\x87", "video/webm", id="webm"),
    pytest.param(b"\x1a\x45\xdf\xa3\xa3B\x86\x81\x01B\x82\x88matroskaB", "video/x-matroska", id="matroska"),
    pytest.param(b"", "application/octet-stream", id="nothing"),
    pytest.param(b"\xff\xd8", "application/octet-stream", id="a cut head"),
    pytest.param(b"<html><script>", "application/octet-stream", id="a page"),
]


@pytest.mark.parametrize(("head", "content_type"), HEADS)
def test_first_bytes_show_the_type(head: bytes, content_type: str) -> None:
    assert sniff(head) == content_type


@given(st.sampled_from([head.values[0] for head in HEADS]), st.binary())
def test_bytes_after_the_head_are_ignored(head: object, further: bytes) -> None:
    assert isinstance(head, bytes)
    padded = head.ljust(HEAD_BYTES, b"\0")

    assert sniff(padded + further) == sniff(padded)


@given(st.binary())
def test_no_content_type_is_executable_in_a_browser(head: bytes) -> None:
    assert sniff(head).split("/")[0] in {"image", "video", "audio", "application"}
    assert sniff(head) != "image/svg+xml"


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (MediaKind.ID_CARD_FRONT, Part.ID_CARD),
        (MediaKind.ID_CARD_BACK, Part.ID_CARD),
        (MediaKind.BEST_FRAME, Part.BEST_FRAME),
        (MediaKind.LIVENESS_VIDEO, Part.VIDEO),
        (MediaKind.INTENTION_AUDIO_10, Part.TEXT),
    ],
)
def test_kind_belongs_to_a_part(kind: MediaKind, part: Part) -> None:
    assert kind.part is part


@pytest.mark.parametrize(
    ("text", "span"),
    [
        (None, None),
        ("bytes=0-", (0, 100)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-500", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-500", (0, 100)),
        ("BYTES=1-1", (1, 2)),
        ("bytes=-", None),
        ("bytes=5-2", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
    ],
)
def test_range_is_parsed_or_ignored(text: str | None, span: tuple[int, int] | None) -> None:
    assert parse_range(text, 100) == span


@pytest.mark.parametrize(("text", "size"), [("bytes=100-", 100), ("bytes=0-", 0)])
def test_range_after_the_end_is_not_satisfiable(text: str, size: int) -> None:
    with pytest.raises(RangeNotSatisfiableError):
        parse_range(text, size)
