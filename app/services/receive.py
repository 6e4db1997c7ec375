"""Takes in what we are told of verifications: durable when the method returns, the same however often it is told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel

from app.domain import lifecycle
from app.domain.access import Caller
from app.domain.verification import Facts, Verification
from app.errors import InvalidRequestError, NotFoundError, ServiceError
from app.services.newcomers import Newcomers
from app.services.together import Together
from app.services.vault import Vault
from app.storage.database import Database
from app.storage.signals import DUE, Signals
from app.storage.verifications import VerificationStore


class ReceiveSettings(BaseModel):
    """What is assumed of a token of which nobody said it."""

    faceid_rule_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Told:
    """What somebody says of a token, and what becomes of its row by it."""

    caller: Caller
    biz_token: str
    rule_id: str | None
    at: datetime
    change: Callable[[Verification], Verification]


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
        self._accept_one = Together(self._accept_all)

    async def register(self, caller: Caller, biz_token: str, facts: Facts) -> tuple[Verification, bool]:
        """A token that DetectAuth returned; whether it is new to us.

        Raises:
            ConflictError: a fact contradicts what is known of the token.
            InvalidRequestError: neither the facts nor the settings name the rule.
            NotFoundError: the token is another client's.
        """
        now = self._clock()
        return await self._accept(
            _Told(caller, biz_token, facts.rule_id, now, lambda known: lifecycle.registered(known, facts, now))
        )

    async def call_back(self, caller: Caller, biz_token: str, rule_id: str | None, extra: str | None) -> Verification:
        """The verification is said to be complete. Raises as `register` does."""
        now = self._clock()

        def change(known: Verification) -> Verification:
            return lifecycle.called_back(known, rule_id, self._vault.seal_extra(known, extra), now)

        verification, _ = await self._accept(_Told(caller, biz_token, rule_id, now, change))
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

    async def _accept(self, told: _Told) -> tuple[Verification, bool]:
        accepted, is_new = await self._accept_one(told)
        if accepted.due_at and accepted.due_at <= told.at:
            self._signals.send(DUE)
        return accepted, is_new

    async def _accept_all(self, together: Sequence[_Told]) -> Sequence[tuple[Verification, bool] | Exception]:
        new: dict[str, Verification] = {}
        first: dict[str, _Told] = {}
        for told in together:
            if told.biz_token not in new and (rule_id := told.rule_id or self._rule_id):
                newcomer = self._newcomers.new(told.biz_token, rule_id, told.at, client=told.caller.client)
                new[told.biz_token], first[told.biz_token] = told.change(newcomer), told
        async with self._database.write() as tx:
            added = await self._verifications.add_all(tx, new.values())
            others = {told.biz_token for told in together} - added.keys()
            known = await self._verifications.lock_all_of(tx, others) if others else []
            before = {**added, **{row.biz_token: row for row in known}}
            rows = dict(before)
            answers: list[tuple[Verification, bool] | Exception] = []
            for told in together:
                if first.get(told.biz_token) is told and told.biz_token in added:
                    answers.append((rows[told.biz_token], True))
                else:
                    answers.append(_changed(told, rows))
            changed = [(before[token], row) for token, row in rows.items() if row is not before[token]]
            await self._verifications.save_all(tx, changed)
        return answers


def _changed(told: _Told, rows: dict[str, Verification]) -> tuple[Verification, bool] | Exception:
    """Changes the row of a token that is known, as it was told."""
    known = rows.get(told.biz_token)
    if known is None:
        return InvalidRequestError("The RuleId is missing, and no default is set.", code="rule_id_required")
    try:
        rows[told.biz_token] = told.change(_visible(told.caller, known))
    except ServiceError as error:
        return error
    return rows[told.biz_token], False


def _visible(caller: Caller, verification: Verification | None) -> Verification:
    if verification is None or not caller.sees(verification.client):
        raise NotFoundError("There is no such verification.")
    return verification
