"""The settings of rules: who may name which RuleId, which parts are requested for it, and how long they are kept."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from app.domain.detection import InfoType, Part
from app.domain.rule import DEFAULT_ACCOUNT, DEFAULT_CLIENT, MEDIA_RETENTION, RETENTION, Enhanced, Rule
from app.errors import InvalidRequestError

# Above the 72 hours in which a result is available, up to ten years.
_MIN_DAYS, _MAX_DAYS = 4, 3650
MAX_BEST_FRAMES = 10
"""Tencent returns no more."""


def _valid_parts(value: str) -> str:
    return str(InfoType(value))


Parts = Annotated[str, AfterValidator(_valid_parts)]


class RuleSettings(BaseModel):
    """One rule: `[rules.RULE_ID]` in the TOML file. Settings that are missing have the default for all rules.

    `clients` may name the rule; without them all clients may. `client`, by default the first of them, owns the
    verifications that only Tencent's bill names. `best_frames`, `cut_id_card` and `id_card_avatar` request
    additional media and need `enhanced`.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    account: str = DEFAULT_ACCOUNT
    client: str | None = None
    clients: Sequence[str] = ()
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
    def _owner_may_name_the_rule(self) -> Self:
        if self.client and self.clients and self.client not in self.clients:
            raise ValueError("client must be one of clients")
        return self

    @model_validator(mode="after")
    def _additional_media_need_enhanced(self) -> Self:
        if (self.best_frames or self.cut_id_card or self.id_card_avatar) and not self.enhanced:
            raise ValueError("best_frames, cut_id_card and id_card_avatar need enhanced = true")
        return self


class RulesSettings(BaseModel):
    """The rules that clients may name, and the defaults for all rules.

    `faceid_rule_id` is the rule of tokens registered without one. It is known, like the `rules`. Other RuleIds are
    rejected unless `accept_unknown_rules` is set.
    """

    faceid_rule_id: str | None = None
    accept_unknown_rules: bool = False
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

    @property
    def known_rule_ids(self) -> Sequence[str]:
        """The RuleIds that the settings name, the default one first."""
        default = [self.faceid_rule_id] if self.faceid_rule_id else []
        return list(dict.fromkeys([*default, *self.rules]))

    def usable(self, rule_id: str | None, client: str | None) -> str:
        """Returns the RuleId that a new verification gets, the default one if none is stated.

        Args:
            rule_id: the stated RuleId.
            client: who states it; None may use every known rule.

        Raises:
            InvalidRequestError: the client may not use the rule, or none is stated and it may not use the default one.
        """
        wanted = rule_id or self.faceid_rule_id
        is_known = self.accept_unknown_rules or wanted in self.known_rule_ids
        if wanted and is_known and (client is None or self.rule(wanted).is_open_to(client)):
            return wanted
        if rule_id is None:
            raise InvalidRequestError(
                "rule_id is required, because no default is set for this client.", code="rule_id_required"
            )
        raise InvalidRequestError(
            "This client may not use the RuleId: the operator must name it in [rules] or set ACCEPT_UNKNOWN_RULES.",
            code="unknown_rule",
        )

    def rule(self, rule_id: str) -> Rule:
        """Returns the rule of a RuleId, also of one that is not known any more."""
        named = self.rules.get(rule_id, RuleSettings())
        enhanced = Enhanced(
            best_frames=named.best_frames, cut_id_card=named.cut_id_card, id_card_avatar=named.id_card_avatar
        )
        return Rule(
            account=named.account,
            client=named.client or next(iter(named.clients), DEFAULT_CLIENT),
            clients=frozenset(named.clients),
            info_type=InfoType(named.info_type or self.faceid_info_type),
            text_first=named.text_first,
            enhanced=enhanced if named.enhanced else None,
            retention=timedelta(days=named.retention_days or self.retention_days),
            media_retention=timedelta(days=named.media_retention_days or self.media_retention_days),
            redirect_state=named.redirect_state,
        )
