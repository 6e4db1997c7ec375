"""A rule: how the results of a RuleId are retrieved and how long they are kept."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from app.domain.detection import EVERYTHING, InfoType, Part

DEFAULT_ACCOUNT = "default"
"""The account of rules that name none; its settings have no prefix."""

DEFAULT_CLIENT = "default"
"""The client of API keys and commands that name none."""

RETENTION = timedelta(days=180)
MEDIA_RETENTION = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enhanced:
    """The media to request from GetDetectInfoEnhanced in addition to the parts.

    `best_frames` is the number of additional frames from the video (at most 10).
    """

    best_frames: int = 0
    cut_id_card: bool = False
    id_card_avatar: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The rule of one RuleId.

    `client` owns verifications that only Tencent's bill names. `clients` may name the rule; empty means all of them.
    `text_first` stores the verdict before the media are
    requested. Text is kept for `retention`, media for `media_retention`, both from the intake. `redirect_state` accepts
    unknown tokens from browsers that bring a signed state.
    """

    account: str = DEFAULT_ACCOUNT
    client: str = DEFAULT_CLIENT
    clients: frozenset[str] = frozenset()
    info_type: InfoType = EVERYTHING
    text_first: bool = False
    enhanced: Enhanced | None = None
    retention: timedelta = RETENTION
    media_retention: timedelta = MEDIA_RETENTION
    redirect_state: bool = False

    def is_open_to(self, client: str) -> bool:
        """Returns whether a client may name the rule."""
        return not self.clients or client in self.clients

    def missing(self, fetched: Collection[Part]) -> frozenset[Part]:
        """Returns the wanted parts that are not among the fetched ones."""
        return self.info_type.parts - frozenset(fetched)

    def next_parts(
        self, fetched: Collection[Part], *, awaited: Collection[Part] = (), separately: bool, turn: int
    ) -> InfoType:
        """Returns the parts to request next. If parts come separately, the text is first: it shows who is finished.

        Args:
            fetched: the stored parts. If nothing is missing, everything is requested again.
            awaited: the parts that a stored result lacks. They are requested with the text, which explains them.
            separately: request one part at a time.
            turn: a number that grows with each try; it rotates the part, so one does not block the others.
        """
        awaited = self.info_type.parts.intersection(awaited)
        if awaited and not fetched:
            chosen = {sorted(awaited)[turn % len(awaited)]} if separately else awaited
            return InfoType("".join(sorted(chosen | self.info_type.parts & {Part.TEXT})))
        missing = self.missing(fetched) or self.info_type.parts
        if Part.TEXT in missing and (separately or self.text_first):
            return InfoType(Part.TEXT)
        if separately:
            return InfoType(sorted(missing)[turn % len(missing)])
        return InfoType("".join(sorted(missing))) if missing < self.info_type.parts else self.info_type
