"""The settings of rules: which parts are requested from Tencent for which RuleId, and how long they are kept."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from app.domain.detection import InfoType, Part
from app.domain.rule import DEFAULT_ACCOUNT, DEFAULT_CLIENT, MEDIA_RETENTION, RETENTION, Enhanced, Rule

# Above the 72 hours in which a result is available, up to ten years.
_MIN_DAYS, _MAX_DAYS = 4, 3650
MAX_BEST_FRAMES = 10
"""Tencent returns no more."""


def _valid_parts(value: str) -> str:
    return str(InfoType(value))


Parts = Annotated[str, AfterValidator(_valid_parts)]


class RuleSettings(BaseModel):
    """One rule: `[rules.RULE_ID]` in the TOML file. Settings that are missing have the default for all rules.

    `best_frames`, `cut_id_card` and `id_card_avatar` request additional media and need `enhanced`.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    account: str = DEFAULT_ACCOUNT
    client: str = DEFAULT_CLIENT
    info_type: Parts | None = None
    text_first: bool = False
    enhanced: bool = False
    best_frames: int = Field(default=0, ge=0, le=MAX_BEST_FRAMES)
    cut_id_card: bool = False
    id_card_avatar: bool = False
    retention_days: int | None = Field(default=None, ge=_MIN_DAYS, le=_MAX_DAYS)
    media_retention_days: int | None = Field(default=None, ge=1, le=_MAX_DAYS)
    redirect_state: bool = False

    @model_validator(mode="after")
    def _additional_media_need_enhanced(self) -> Self:
        if (self.best_frames or self.cut_id_card or self.id_card_avatar) and not self.enhanced:
            raise ValueError("best_frames, cut_id_card and id_card_avatar need enhanced = true")
        return self


class RulesSettings(BaseModel):
    """The defaults for all rules, and the rules that differ."""

    faceid_info_type: Parts = "0"
    retention_days: int = Field(default=RETENTION.days, ge=_MIN_DAYS, le=_MAX_DAYS)
    media_retention_days: int = Field(default=MEDIA_RETENTION.days, ge=1, le=_MAX_DAYS)
    rules: Mapping[str, RuleSettings] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _media_are_not_kept_longer(self) -> Self:
        for rule_id in ("", *self.rules):
            rule = self.rule(rule_id)
            if rule.media_retention > rule.retention:
                raise ValueError(f"media_retention_days is longer than retention_days, rule {rule_id or 'by default'}")
        return self

    @model_validator(mode="after")
    def _redirect_state_needs_the_text(self) -> Self:
        for rule_id, named in self.rules.items():
            if named.redirect_state and Part.TEXT not in self.rule(rule_id).info_type.parts:
                raise ValueError(f"rules.{rule_id} has redirect_state, so its info_type must request the text: 0 or 1")
        return self

    def rule(self, rule_id: str) -> Rule:
        """Returns the rule of a RuleId."""
        named = self.rules.get(rule_id, RuleSettings())
        enhanced = Enhanced(
            best_frames=named.best_frames, cut_id_card=named.cut_id_card, id_card_avatar=named.id_card_avatar
        )
        return Rule(
            account=named.account,
            client=named.client,
            info_type=InfoType(named.info_type or self.faceid_info_type),
            text_first=named.text_first,
            enhanced=enhanced if named.enhanced else None,
            retention=timedelta(days=named.retention_days or self.retention_days),
            media_retention=timedelta(days=named.media_retention_days or self.media_retention_days),
            redirect_state=named.redirect_state,
        )
