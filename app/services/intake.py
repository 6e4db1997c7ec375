"""Accepts registrations and callbacks. Durable when the method returns; idempotent per BizToken."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from app.domain import lifecycle
from app.domain.api_key import Actor, Caller
from app.domain.audit import Action
from app.domain.verification import TokenFacts, Verification
from app.errors import ConflictError, InvalidRequestError, NotFoundError, ServiceError
from app.sealing.personal_data import PersonalDataCipher
from app.services.audit import AuditService
from app.services.batching import Batcher
from app.services.rule_settings import RulesSettings
from app.storage.database import Database, Transaction
from app.storage.wakeups import DUE, Wakeups


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A statement about a BizToken.

    Args:
        biz_token: the token.
        rule_id: the rule that it states; None if it states none. A new verification then has the default rule.
        at: when the notice arrived.
        change: returns the changed row, for a new and for a known verification.
        caller: who made it, and must be able to see a known verification. None: a browser brought a signed state.
        client: who owns a new verification; None for the caller's client, or without a caller the rule's.
        nonce: of the signed state, which the result must contain. The state may be used by one token.
    """

    biz_token: str
    rule_id: str | None
    at: datetime
    change: Callable[[Verification], Verification]
    caller: Caller | None = None
    client: str | None = None
    nonce: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A verification after a notice, and whether the notice created it."""

    verification: Verification
    is_new: bool


@dataclass(kw_only=True, repr=False, eq=False)
class IntakeService:
    """Accepts notices about tokens, from any source."""

    rules: RulesSettings
    cipher: PersonalDataCipher
    audit: AuditService
    database: Database
    wakeups: Wakeups
    clock: Callable[[], datetime]
    _accept: Batcher[Notice, Accepted] = field(init=False)

    def __post_init__(self) -> None:
        self._accept = Batcher(self._accept_batch)

    async def register(self, actor: Actor, biz_token: str, facts: TokenFacts) -> Accepted:
        """Registers a token that DetectAuth returned.

        Raises:
            ConflictError: a fact contradicts a known one.
            InvalidRequestError: neither the facts nor the settings name the rule, or the caller may not use it.
            NotFoundError: the token belongs to another client.
        """
        now = self.clock()
        return await self.accept(
            Notice(
                biz_token=biz_token,
                rule_id=facts.rule_id,
                at=now,
                caller=actor.caller,
                change=lambda known: lifecycle.registered(known, facts, now),
            )
        )

    async def call_back(self, actor: Actor, biz_token: str, rule_id: str | None, extra: str | None) -> Verification:
        """Accepts a callback: the person is done. Raises the errors of `register`."""
        now = self.clock()

        def change(known: Verification) -> Verification:
            known = lifecycle.vouched(known, now)
            return lifecycle.called_back(known, self.cipher.seal_extra(known, extra), now)

        notice = Notice(biz_token=biz_token, rule_id=rule_id, at=now, caller=actor.caller, change=change)
        return (await self.accept(notice)).verification

    async def retrieve_again(self, actor: Actor, biz_token: str) -> Verification:
        """Makes the result due now, even if one is stored.

        Raises:
            GoneError: the verification was erased.
            NotFoundError: the token is unknown or belongs to another client.
        """
        now = self.clock()
        async with self.database.write() as tx:
            known = require_visible(actor.caller, await tx.verifications.lock(biz_token))
            due = lifecycle.retrieve_again(lifecycle.vouched(known, now), now)
            await self._save(tx, [(known, due)])
            await self.audit.record(tx, self.audit.describe(actor, Action.RETRIEVE, verification=known))
        self.wakeups.send(DUE)
        return due

    async def accept(self, notice: Notice) -> Accepted:
        """Accepts one notice, in one transaction with the notices that arrive at the same time.

        Raises:
            ServiceError: see `accept_all`.
        """
        accepted = await self._accept(notice)
        due_at = accepted.verification.due_at
        if due_at and due_at <= notice.at:
            self.wakeups.send(DUE)
        return accepted

    async def accept_all(self, tx: Transaction, notices: Sequence[Notice]) -> Sequence[Accepted | ServiceError]:
        """Accepts notices in the caller's transaction, which must send the wake-up `DUE` after its commit.

        Returns, for each notice in order, the verification or why the notice was rejected: `InvalidRequestError`
        without a rule that the caller may use, `NotFoundError` for another client's token, `ConflictError` for a
        contradiction.
        """
        spent = await self._use_states(tx, notices)
        first: dict[str, Notice] = {}
        new: list[Verification] = []
        refused: dict[Notice, ServiceError] = {}
        # Those with a caller first: another notice of the batch must not keep them from creating the row.
        for notice in sorted(notices, key=lambda notice: notice.caller is None):
            try:
                if notice not in spent and notice.biz_token not in first:
                    new.append(notice.change(self._new(notice)))
                    first[notice.biz_token] = notice
            except InvalidRequestError as error:
                refused[notice] = error
        added = await tx.verifications.add_all(new)
        may_change = {notice.biz_token for notice in notices if notice not in spent} - added.keys()
        known = await tx.verifications.lock_all(may_change) if may_change else []
        before = {**added, **{row.biz_token: row for row in known}}
        after = dict(before)
        results: list[Accepted | ServiceError] = []
        for notice in notices:
            if notice.biz_token in added and first[notice.biz_token] is notice:
                results.append(Accepted(after[notice.biz_token], is_new=True))
            elif notice in refused and notice.biz_token not in after:
                results.append(refused[notice])
            elif notice in spent:
                results.append(ConflictError("The state was used before."))
            else:
                results.append(self._changed(notice, after))
        await self._save(tx, [(before[token], row) for token, row in after.items() if row is not before[token]])
        return results

    async def _use_states(self, tx: Transaction, notices: Sequence[Notice]) -> Collection[Notice]:
        """Marks the signed states of notices as used; returns the notices whose states were used before."""
        first: dict[str, Notice] = {}
        for notice in notices:
            if notice.nonce and notice.client:
                first.setdefault(notice.nonce, notice)
        if not first:
            return ()
        uses = [(nonce, notice.client or "", notice.biz_token) for nonce, notice in first.items()]
        unused = {first[nonce] for nonce in await tx.redirects.use(uses)}
        return {notice for notice in notices if notice.nonce} - unused

    async def _save(self, tx: Transaction, changes: Collection[tuple[Verification, Verification]]) -> None:
        """Saves rows. A nonce that is no longer required stays used, also if an earlier version used it."""
        cleared = [
            (before.nonce, before.client, before.biz_token)
            for before, after in changes
            if before.nonce and after.nonce is None
        ]
        if cleared:
            await tx.redirects.use(cleared)
        await tx.verifications.save_all(changes, self.clock())

    async def _accept_batch(self, notices: Sequence[Notice]) -> Sequence[Accepted | ServiceError]:
        async with self.database.write() as tx:
            return await self.accept_all(tx, notices)

    def _new(self, notice: Notice) -> Verification:
        rule_id = self._rule_id(notice)
        rule = self.rules.rule(rule_id)
        client = notice.client or (notice.caller.client if notice.caller else rule.client)
        return lifecycle.new(
            client=client,
            biz_token=notice.biz_token,
            rule_id=rule_id,
            # The state states the rule of its own run, and the token may be another run's.
            is_rule_assumed=notice.rule_id is None or notice.nonce is not None,
            rule=rule,
            sealed_key=self.cipher.new_key(client, notice.biz_token),
            nonce=notice.nonce,
            now=notice.at,
        )

    def _rule_id(self, notice: Notice) -> str:
        """Returns the rule of a new verification.

        Raises:
            InvalidRequestError: there is none, or the caller may not use it.
        """
        client = notice.caller.visible_client if notice.caller else notice.client
        return self.rules.usable(notice.rule_id, client)

    def _changed(self, notice: Notice, rows: dict[str, Verification]) -> Accepted | ServiceError:
        """Applies a notice to the row of a known token in `rows`."""
        try:
            known = rows.get(notice.biz_token)
            if known is None or notice.rule_id not in {None, known.rule_id}:
                self._rule_id(notice)
            if notice.caller is None:
                rows[notice.biz_token] = self._claimed(notice, known)
                return Accepted(rows[notice.biz_token], is_new=False)
            known = require_visible(notice.caller, known)
            if notice.rule_id:
                known = lifecycle.with_rule(known, notice.rule_id, self.rules.rule(notice.rule_id), notice.at)
            rows[notice.biz_token] = notice.change(known)
        except ServiceError as error:
            return error
        return Accepted(rows[notice.biz_token], is_new=False)

    def _claimed(self, notice: Notice, known: Verification | None) -> Verification:
        """Applies a signed state to the row of a known token that only states have brought.

        Raises:
            ConflictError: the row is not waiting for the state of its run.
        """
        is_own = known is not None and known.client == notice.client
        if known is None or not is_own or (claimed := lifecycle.claimed(known, notice.at)) is known:
            raise ConflictError("The verification is already known.")
        if notice.rule_id:
            claimed = lifecycle.with_rule(claimed, notice.rule_id, self.rules.rule(notice.rule_id), notice.at)
        return replace(notice.change(claimed), is_rule_assumed=True)


def require_visible(caller: Caller, verification: Verification | None) -> Verification:
    """Returns the verification if the caller can see it.

    Raises:
        NotFoundError: it does not exist or belongs to another client.
    """
    if verification is None or not caller.can_see(verification.client):
        raise not_found()
    return verification


def not_found() -> NotFoundError:
    """Returns the error for a verification that does not exist or belongs to another client."""
    return NotFoundError("There is no such verification.")
