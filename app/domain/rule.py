"""How results of a RuleId are retrieved: by which account, by which action, and which parts."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from app.domain.detection import EVERYTHING, InfoType, Part

DEFAULT_ACCOUNT = "default"
"""The account of rules that name none; its settings are those without a name."""

DEFAULT_CLIENT = "default"
"""The client of API keys and commands that name none."""


RETENTION = timedelta(days=180)
MEDIA_RETENTION = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enhanced:
    """That GetDetectInfoEnhanced is asked, and for what beyond the parts.

    `best_frames` is how many further frames are cut from the video (10 at most).
    """

    best_frames: int = 0
    cut_id_card: bool = False
    id_card_avatar: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One RuleId's way; `text_first` stores the verdict before the media are asked for.

    `client` is whose verifications those are that nobody but Tencent told of. Text is kept for `retention`, media for
    `media_retention`, counted from the intake. `redirect_state` takes tokens in that a browser brings with a signed
    state.
    """

    account: str = DEFAULT_ACCOUNT
    client: str = DEFAULT_CLIENT
    info_type: InfoType = EVERYTHING
    text_first: bool = False
    enhanced: Enhanced | None = None
    retention: timedelta = RETENTION
    media_retention: timedelta = MEDIA_RETENTION
    redirect_state: bool = False

    def missing(self, pulled: Collection[Part]) -> frozenset[Part]:
        """Which of the wanted parts are not among the pulled ones."""
        return self.info_type.parts - frozenset(pulled)

    def next_parts(self, pulled: Collection[Part], *, one_by_one: bool, failures: int) -> InfoType:
        """What to ask for next. The text comes first wherever the parts come apart, since it says who is finished.

        Args:
            pulled: what is stored already; where that is all, everything is pulled anew.
            one_by_one: whether all at once were too much.
            failures: in a row; one by one, a part that cannot be had does not keep the others waiting.
        """
        missing = self.missing(pulled) or self.info_type.parts
        if Part.TEXT in missing and (one_by_one or self.text_first):
            return InfoType(Part.TEXT)
        if one_by_one:
            return InfoType(sorted(missing)[failures % len(missing)])
        return InfoType("".join(sorted(missing))) if missing < self.info_type.parts else self.info_type
