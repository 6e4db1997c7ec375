"""Rows of tokens that are new: whose account they belong to, and the key that all of theirs will be sealed under."""

from datetime import datetime

from app.domain import lifecycle
from app.domain.verification import Verification
from app.services.rules import RulesSettings
from app.services.vault import Vault


class Newcomers:
    """Makes the row of a token; `lifecycle` says what is to be done about it, a store keeps it."""

    def __init__(self, rules: RulesSettings, vault: Vault) -> None:
        self._rules = rules
        self._vault = vault

    def new(
        self, biz_token: str, rule_id: str, now: datetime, *, client: str | None = None, nonce: str | None = None
    ) -> Verification:
        """The row of a token that nobody told us of before, of the rule's client where none is named."""
        rule = self._rules.rule(rule_id)
        client = client or rule.client
        return lifecycle.new(
            client=client,
            biz_token=biz_token,
            rule_id=rule_id,
            rule=rule,
            sealed_key=self._vault.new_key(client, biz_token),
            nonce=nonce,
            now=now,
        )
