"""Grants of the console: which media each kind of disclosure covers."""

from datetime import UTC, datetime

import pytest

from app.domain.grant import Grant, Wanted
from app.domain.media import MediaItem, MediaKind

NOW = datetime(2026, 11, 26, 8, tzinfo=UTC)


def item(content_type: str) -> MediaItem:
    return MediaItem(
        kind=MediaKind.BEST_FRAME,
        object_key="key",
        content_type=content_type,
        size_bytes=1,
        sha256="0" * 64,
        sealed_key=b"",
        stored_at=NOW,
    )


def grant(*wanted: Wanted) -> Grant:
    return Grant(session="s", client="shop", biz_token="t", revision=1, wanted=frozenset(wanted), expires_at=NOW)


@pytest.mark.parametrize(
    ("wanted", "covered"),
    [
        ([Wanted.IDENTITY], []),
        ([Wanted.PICTURES], ["image/jpeg"]),
        ([Wanted.RECORDINGS], ["video/mp4", "audio/wav", "application/octet-stream"]),
        ([Wanted.PICTURES, Wanted.RECORDINGS], ["image/jpeg", "video/mp4", "audio/wav", "application/octet-stream"]),
    ],
    ids=str,
)
def test_pictures_are_images_and_recordings_everything_else(wanted: list[Wanted], covered: list[str]) -> None:
    types = ["image/jpeg", "video/mp4", "audio/wav", "application/octet-stream"]

    assert [each for each in types if grant(*wanted).covers(item(each))] == covered


def test_identity_is_shown_only_if_it_was_wanted() -> None:
    assert [grant(Wanted.PICTURES).has_identity, grant(Wanted.IDENTITY).has_identity] == [False, True]
