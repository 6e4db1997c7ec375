"""Media are valid files, different for each token and kind."""

import pytest

from app.domain.media import MediaKind
from simulator.media import VIDEO_BYTES, media_of, picture_of

PICTURES = [kind for kind in MediaKind if kind != MediaKind.LIVENESS_VIDEO]
ORDINARY_MEDIA = [MediaKind.ID_CARD_FRONT, MediaKind.ID_CARD_BACK, MediaKind.BEST_FRAME, MediaKind.LIVENESS_VIDEO]


def jpeg_markers(data: bytes) -> list[int]:
    """Returns the markers up to the start of scan, following the length of each segment."""
    markers: list[int] = []
    at = 2
    while not markers or markers[-1] != 0xDA:
        assert data[at] == 0xFF
        markers.append(data[at + 1])
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return markers


def mp4_boxes(data: bytes) -> list[tuple[bytes, int]]:
    """Returns name and size of the top-level boxes, which must fill the file without gaps."""
    boxes, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        assert 8 <= size <= len(data) - at
        boxes.append((data[at + 4 : at + 8], size))
        at += size
    return boxes


@pytest.mark.parametrize("kind", PICTURES)
def test_picture_is_a_jpeg_with_a_stamp(kind: MediaKind) -> None:
    picture = picture_of("anna", kind)

    assert (picture[:2], picture[-2:]) == (b"\xff\xd8", b"\xff\xd9")
    assert jpeg_markers(picture)[:2] == [0xFE, 0xE0]
    assert picture[6:16] == b"SYNTHETIC "
    assert 20_000 < len(picture) < 200_000


@pytest.mark.parametrize("size", [VIDEO_BYTES, 6_000_000])
def test_video_is_an_mp4_of_the_requested_size(size: int) -> None:
    video = media_of("anna", video_bytes=size)[MediaKind.LIVENESS_VIDEO]

    names = [name for name, _ in mp4_boxes(video)]
    assert (names[:2], names[-2:]) == ([b"ftyp", b"moov"], [b"free", b"free"])
    assert b"mdat" in names
    assert len(video) == size


def test_video_is_never_cut_below_the_sample() -> None:
    video = media_of("anna", video_bytes=10)[MediaKind.LIVENESS_VIDEO]

    assert mp4_boxes(video)[-1] == (b"free", 8 + len("SYNTHETIC ") + 64)


def test_media_differ_by_token_and_kind_and_are_reproducible() -> None:
    media = [*media_of("anna").values(), *media_of("bob").values()]
    pictures = {picture_of(biz_token, kind) for biz_token in ("anna", "bob") for kind in PICTURES}

    assert (len(set(media)), len(pictures), len(pictures & set(media))) == (8, 2 * len(PICTURES), 6)
    assert media_of("anna") == dict(zip(ORDINARY_MEDIA, media, strict=False))
