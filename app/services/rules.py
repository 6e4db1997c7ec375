"""What is asked of Tencent for which RuleId."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from app.domain.detection import InfoType
from app.domain.rule import DEFAULT_ACCOUNT, DEFAULT_CLIENT, Enhanced, Rule

MOST_BEST_FRAMES = 10  # Tencent sends no more


def _known_parts(value: str) -> str:
    return str(InfoType(value))


Parts = Annotated[str, AfterValidator(_known_parts)]


class RuleSettings(BaseModel):
    """One rule: `[rules.RULE_ID]` in the TOML file. What it does not say is as for rules that are not named.

    `best_frames`, `cut_id_card` and `id_card_avatar` ask for more media and need `enhanced`.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    account: str = DEFAULT_ACCOUNT
    client: str = DEFAULT_CLIENT
    info_type: Parts | None = None
    text_first: bool = False
    enhanced: bool = False
    best_frames: int = Field(default=0, ge=0, le=MOST_BEST_FRAMES)
    cut_id_card: bool = False
    id_card_avatar: bool = False

    @model_validator(mode="after")
    def _more_is_enhanced(self) -> Self:
        if (self.best_frames or self.cut_id_card or self.id_card_avatar) and not self.enhanced:
            raise ValueError("best_frames, cut_id_card and id_card_avatar need enhanced = true")
        return self


class RulesSettings(BaseModel):
    """What is pulled for all rules, and what is different for some."""

    faceid_info_type: Parts = "0"
    rules: Mapping[str, RuleSettings] = Field(default_factory=dict)

    def rule(self, rule_id: str) -> Rule:
        """How results of this RuleId are retrieved."""
        named = self.rules.get(rule_id, RuleSettings())
        more = Enhanced(
            best_frames=named.best_frames, cut_id_card=named.cut_id_card, id_card_avatar=named.id_card_avatar
        )
        return Rule(
            account=named.account,
            client=named.client,
            info_type=InfoType(named.info_type or self.faceid_info_type),
            text_first=named.text_first,
            enhanced=more if named.enhanced else None,
        )
