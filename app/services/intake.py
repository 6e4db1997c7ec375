"""Accepts registrations and callbacks. Durable when the method returns; idempotent per client and BizToken."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from app.domain import lifecycle
from app.domain.api_key import Actor, Caller, Scope
from app.domain.audit import Action
from app.domain.rate import RateClass
from app.domain.verification import State, TokenFacts, TokenOwner, Verification
from app.errors import ConflictError, InvalidRequestError, NotFoundError, ServiceError
from app.sealing.personal_data import PersonalDataCipher
from app.services.audit import AuditService
from app.services.batching import Batcher
from app.services.limits import LimitService
from app.services.rule_settings import RulesSettings
from app.services.visibility import find_visible, lock_visible, require_client, require_scope
from app.storage.database import Database, Transaction
from app.storage.wakeups import DUE, Wakeups


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A statement about a BizToken.

    Args:
        biz_token: the token.
        client: whose verification it is about. Those of other clients do not matter.
        rule_id: the rule that it states; None if it states none. A new verification then has the default rule.
        at: when the notice arrived.
        change: returns the changed row, for a new and for a known verification.
        may_use_every_rule: whether it may state every known rule, or only those that are open to the client.
        nonce: of the signed state with which a browser came; None for a key or a signature. The state may be used by
            one token, and the result must contain its nonce.
    """

    biz_token: str
    client: str
    rule_id: str | None
    at: datetime
    change: Callable[[Verification], Verification]
    may_use_every_rule: bool = False
    nonce: str | None = field(default=None, repr=False)

    @property
    def owner(self) -> TokenOwner:
        """The client and the token."""
        return self.client, self.biz_token


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
    limits: LimitService
    _accept: Batcher[Notice, Accepted] = field(init=False)

    def __post_init__(self) -> None:
        self._accept = Batcher(self._accept_batch)

    async def register(self, actor: Actor, biz_token: str, facts: TokenFacts, *, client: str | None = None) -> Accepted:
        """Registers a token that DetectAuth returned.

        Args:
            actor: who registers it.
            biz_token: the token.
            facts: what the caller states about it.
            client: whose verification it is. By default the caller's, or the only one of the token for an admin.

        Raises:
            ConflictError: a fact contradicts a known one, or several clients have the token and an admin names none.
            ForbiddenError: the caller cannot see the client's verifications.
            InvalidRequestError: neither the facts nor the settings name the rule, or the caller may not use it.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        self.limits.admit(actor.caller, RateClass.INTAKE)
        now = self.clock()
        return await self.accept(
            Notice(
                biz_token=biz_token,
                client=await self._client_of(actor.caller, biz_token, client),
                rule_id=facts.rule_id,
                at=now,
                may_use_every_rule=actor.caller.visible_client is None,
                change=lambda known: lifecycle.registered(known, facts, now),
            )
        )

    async def call_back(
        self, actor: Actor, biz_token: str, rule_id: str | None, extra: str | None, *, client: str | None = None
    ) -> Verification:
        """Accepts a callback: the person is done. Raises the errors of `register`."""
        self.limits.admit(actor.caller, RateClass.INTAKE)
        now = self.clock()

        def change(known: Verification) -> Verification:
            known = lifecycle.vouched(known, now)
            return lifecycle.called_back(known, self.cipher.seal_extra(known, extra), now)

        notice = Notice(
            biz_token=biz_token,
            client=await self._client_of(actor.caller, biz_token, client),
            rule_id=rule_id,
            at=now,
            may_use_every_rule=actor.caller.visible_client is None,
            change=change,
        )
        return (await self.accept(notice)).verification

    async def retrieve_again(self, actor: Actor, biz_token: str, *, client: str | None = None) -> Verification:
        """Makes the result due now, even if one is stored. Raises the errors of `choose_visible`.

        Raises:
            ForbiddenError: the caller lacks `callbacks:write`.
            GoneError: the verification was erased.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        require_scope(actor.caller, Scope.CALLBACKS_WRITE)
        self.limits.admit(actor.caller, RateClass.RETRIEVE)
        now = self.clock()
        async with self.database.write() as tx:
            known = await lock_visible(tx, actor.caller, biz_token, client)
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
        without a rule that the client may use, `ConflictError` for a contradiction.
        """
        spent = await self._use_states(tx, notices)
        first: dict[TokenOwner, Notice] = {}
        new: list[Verification] = []
        refused: dict[Notice, ServiceError] = {}
        # Those of browsers last: they must not keep another notice of the batch from creating the row.
        for notice in sorted(notices, key=lambda notice: notice.nonce is not None):
            try:
                if notice not in spent and notice.owner not in first:
                    new.append(notice.change(self._new(notice)))
                    first[notice.owner] = notice
            except InvalidRequestError as error:
                refused[notice] = error
        added = await tx.verifications.add_all(new)
        may_change = {notice.owner for notice in notices if notice not in spent} - added.keys()
        known = await tx.verifications.lock_all(may_change) if may_change else {}
        before = {**added, **known}
        after = dict(before)
        results: list[Accepted | ServiceError] = []
        for notice in notices:
            if notice.owner in added and first[notice.owner] is notice:
                results.append(Accepted(after[notice.owner], is_new=True))
            elif notice in refused and notice.owner not in after:
                results.append(refused[notice])
            elif notice in spent:
                results.append(ConflictError("The state was used before."))
            else:
                results.append(self._changed(notice, after))
        await self._release_states(tx, [notice for notice in notices if notice not in spent], after)
        await self._save(tx, [(before[owner], row) for owner, row in after.items() if row is not before[owner]])
        return results

    async def _use_states(self, tx: Transaction, notices: Sequence[Notice]) -> Collection[Notice]:
        """Marks the signed states of notices as used; returns the notices whose states were used before."""
        first: dict[str, Notice] = {}
        for notice in notices:
            if notice.nonce:
                first.setdefault(notice.nonce, notice)
        if not first:
            return ()
        uses = [(nonce, *notice.owner) for nonce, notice in first.items()]
        unused = {first[nonce] for nonce in await tx.redirects.use(uses)}
        return {notice for notice in notices if notice.nonce} - unused

    async def _release_states(
        self, tx: Transaction, notices: Collection[Notice], rows: Mapping[TokenOwner, Verification]
    ) -> None:
        """Releases the states of refused notices about unknown or erased tokens: no erasure would remove them."""
        living = {owner for owner, row in rows.items() if row.state is not State.ERASED}
        if unneeded := {notice.nonce for notice in notices if notice.nonce and notice.owner not in living}:
            await tx.redirects.release(unneeded)

    async def _save(self, tx: Transaction, changes: Collection[tuple[Verification, Verification]]) -> None:
        """Saves rows. A nonce that is no longer required stays used, also if an earlier version used it."""
        cleared = [(before.nonce, *before.owner) for before, after in changes if before.nonce and after.nonce is None]
        if cleared:
            await tx.redirects.use(cleared)
        digested = [(before, self.cipher.with_digest(before, after)) for before, after in changes]
        await tx.verifications.save_all(digested, self.clock())

    async def _accept_batch(self, notices: Sequence[Notice]) -> Sequence[Accepted | ServiceError]:
        async with self.database.write() as tx:
            return await self.accept_all(tx, notices)

    def _new(self, notice: Notice) -> Verification:
        rule_id = self._rule_id(notice)
        rule = self.rules.rule(rule_id)
        return lifecycle.new(
            client=notice.client,
            biz_token=notice.biz_token,
            rule_id=rule_id,
            # The state states the rule of its own run, and the token may be another run's.
            is_rule_assumed=notice.rule_id is None or notice.nonce is not None,
            rule=rule,
            sealed_key=self.cipher.new_key(*notice.owner),
            nonce=notice.nonce,
            now=notice.at,
        )

    def _rule_id(self, notice: Notice) -> str:
        """Returns the rule of a new verification.

        Raises:
            InvalidRequestError: there is none, or the client may not use it.
        """
        return self.rules.usable(notice.rule_id, None if notice.may_use_every_rule else notice.client)

    def _changed(self, notice: Notice, rows: dict[TokenOwner, Verification]) -> Accepted | ServiceError:
        """Applies a notice to the row of a known token in `rows`."""
        try:
            known = rows.get(notice.owner)
            if known is None or notice.rule_id not in {None, known.rule_id}:
                self._rule_id(notice)
            if known is None:
                # An earlier version used the nonce. Or a migration has not finished, so another client's row excludes
                # this one.
                raise ConflictError("The verification is already known.")
            # A state changes a row only if it may be the one of its run.
            ready = known if notice.nonce is None else lifecycle.claimed(known, notice.at)
            if notice.nonce and ready is known:
                raise ConflictError("The verification is already known.")
            if notice.rule_id:
                ready = lifecycle.with_rule(ready, notice.rule_id, self.rules.rule(notice.rule_id), notice.at)
            changed = notice.change(ready)
        except ServiceError as error:
            return error
        rows[notice.owner] = replace(changed, is_rule_assumed=True) if notice.nonce else changed
        return Accepted(rows[notice.owner], is_new=False)

    async def _client_of(self, caller: Caller, biz_token: str, client: str | None) -> str:
        """Returns the client whose verification a notice is about. Raises the errors of `register`."""
        require_client(caller, client)
        if client is not None or caller.visible_client is not None:
            return client or caller.client
        async with self.database.read() as tx:
            with suppress(NotFoundError):
                return (await find_visible(tx, caller, biz_token, None)).client
        return caller.client
