"""The unreadable media that a result shows."""

from dataclasses import replace
from datetime import UTC, datetime

from app.domain.media import MediaItem, MediaKind, UnreadableMedia, UnreadableReason
from app.domain.verification import Result
from tests.support.rows import MINIMAL

VIDEO, FRAME = (
    UnreadableMedia(kind, UnreadableReason.NOT_BASE64) for kind in (MediaKind.LIVENESS_VIDEO, MediaKind.BEST_FRAME)
)


def test_medium_of_an_earlier_answer_is_not_reported_as_unreadable() -> None:
    stored = MediaItem(
        kind=MediaKind.BEST_FRAME,
        object_key="a",
        content_type="image/jpeg",
        size_bytes=1,
        sha256="0",
        sealed_key=b"",
        stored_at=datetime(2026, 1, 1, tzinfo=UTC),
    )

    assert Result(verification=replace(MINIMAL, unreadable=(VIDEO, FRAME)), media=(stored,)).unreadable == [VIDEO]


def test_client_and_token_identify_a_verification() -> None:
    assert MINIMAL.owner == ("default", "minimal")
