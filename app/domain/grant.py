"""A grant: what one session of the console may show of one result, for a few minutes and for one recorded purpose."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.domain.media import MediaItem

LIFETIME = timedelta(minutes=10)
"""How long unmasked data is shown after it was disclosed."""


class Wanted(StrEnum):
    """The things that a grant can disclose. The value is the letter in its text."""

    IDENTITY = "i"
    PICTURES = "p"
    RECORDINGS = "r"

    def covers(self, item: MediaItem) -> bool:
        """Returns whether it includes this media item: pictures by their content type, recordings are all others."""
        is_picture = item.content_type.startswith("image/")
        return self is (Wanted.PICTURES if is_picture else Wanted.RECORDINGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A disclosure whose audit rows are committed. It is about one revision of the result: a newer one ends it."""

    session: str
    client: str
    biz_token: str
    revision: int
    wanted: frozenset[Wanted]
    expires_at: datetime

    @property
    def has_identity(self) -> bool:
        """Whether the unmasked identity may be shown."""
        return Wanted.IDENTITY in self.wanted

    def covers(self, item: MediaItem) -> bool:
        """Returns whether the media item may be shown."""
        return any(each.covers(item) for each in self.wanted)
