"""Takes in what we are told of verifications: durable when the method returns, the same however often it is told."""

from collections.abc import Callable
from datetime import datetime

from pydantic import BaseModel

from app.domain import lifecycle
from app.domain.access import Caller
from app.domain.verification import Facts, Verification
from app.errors import InvalidRequestError, NotFoundError
from app.services.newcomers import Newcomers
from app.services.vault import Vault
from app.storage.database import Database
from app.storage.signals import DUE, Signals
from app.storage.verifications import VerificationStore


class ReceiveSettings(BaseModel):
    """What is assumed of a token of which nobody said it."""

    faceid_rule_id: str | None = None


class ReceiveService:
    """Registrations and callbacks."""

    def __init__(
        self,
        *,
        settings: ReceiveSettings,
        newcomers: Newcomers,
        vault: Vault,
        database: Database,
        verifications: VerificationStore,
        signals: Signals,
        clock: Callable[[], datetime],
    ) -> None:
        self._rule_id = settings.faceid_rule_id
        self._newcomers = newcomers
        self._vault = vault
        self._database = database
        self._verifications = verifications
        self._signals = signals
        self._clock = clock

    async def register(self, caller: Caller, biz_token: str, facts: Facts) -> tuple[Verification, bool]:
        """A token that DetectAuth returned; whether it is new to us.

        Raises:
            ConflictError: a fact contradicts what is known of the token.
            InvalidRequestError: neither the facts nor the settings name the rule.
            NotFoundError: the token is another client's.
        """
        now = self._clock()
        return await self._accept(
            caller, biz_token, facts.rule_id, now, lambda verification: lifecycle.registered(verification, facts, now)
        )

    async def call_back(self, caller: Caller, biz_token: str, rule_id: str | None, extra: str | None) -> Verification:
        """The verification is said to be complete. Raises as `register` does."""
        now = self._clock()
        verification, _ = await self._accept(
            caller,
            biz_token,
            rule_id,
            now,
            lambda verification: lifecycle.called_back(
                verification, rule_id, self._vault.seal_extra(verification, extra), now
            ),
        )
        return verification

    async def retrieve_again(self, caller: Caller, biz_token: str) -> Verification:
        """Pulls the result once more, now.

        Raises:
            NotFoundError: the token is unknown or another client's.
        """
        now = self._clock()
        async with self._database.write() as tx:
            known = _visible(caller, await self._verifications.lock(tx, biz_token))
            asked = lifecycle.asked_again(known, now)
            await self._verifications.save(tx, known, asked)
        self._signals.send(DUE)
        return asked

    async def _accept(
        self,
        caller: Caller,
        biz_token: str,
        rule_id: str | None,
        now: datetime,
        change: Callable[[Verification], Verification],
    ) -> tuple[Verification, bool]:
        rule_id = rule_id or self._rule_id
        async with self._database.write() as tx:
            accepted = rule_id and await self._verifications.add(
                tx, change(self._newcomers.new(biz_token, rule_id, now, client=caller.client))
            )
            is_new = bool(accepted)
            if not accepted:
                known = await self._verifications.lock(tx, biz_token)
                if known is None:
                    raise InvalidRequestError("The RuleId is missing, and no default is set.", code="rule_id_required")
                accepted = change(_visible(caller, known))
                await self._verifications.save(tx, known, accepted)
        if accepted.due_at and accepted.due_at <= now:
            self._signals.send(DUE)
        return accepted, is_new


def _visible(caller: Caller, verification: Verification | None) -> Verification:
    if verification is None or not caller.sees(verification.client):
        raise NotFoundError("There is no such verification.")
    return verification
