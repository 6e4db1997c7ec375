"""How results of a RuleId are retrieved: by which account, which action, and which parts."""

from dataclasses import dataclass

from app.domain.detection import EVERYTHING, InfoType

DEFAULT_ACCOUNT = "default"
"""The account of rules that name none; its settings are those without a name."""


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
    """One RuleId's way; `text_first` stores the verdict before the media are asked for."""

    account: str = DEFAULT_ACCOUNT
    info_type: InfoType = EVERYTHING
    text_first: bool = False
    enhanced: Enhanced | None = None
