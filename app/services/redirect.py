"""What browsers say on DetectAuth's RedirectUrl: a hint that anybody may give, or a state that a business signed."""

import asyncio
import secrets
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime

import structlog

from app.domain import lifecycle, redirect
from app.domain.access import Caller
from app.domain.redirect import Ticket
from app.domain.verification import Verification
from app.errors import InvalidRequestError, ServiceError
from app.sealing.keyring import KeyRing
from app.services.newcomers import Newcomers
from app.services.receive import ReceiveSettings
from app.services.rules import RulesSettings
from app.storage.database import Database
from app.storage.signals import DUE, Signals
from app.storage.verifications import VerificationStore

_GATHER_SECONDS = 0.02  # one look at the database for all that came meanwhile, however many
_FLOOD_SECONDS = 0.1  # between looks while they do not cease
_MOST_GATHERED = 1000  # what comes beyond is dropped: registered tokens are polled as well
_MOST_SPENT = 10_000
_NONCE_BYTES = 16

_Hint = tuple[str, str | None]  # a BizToken, and the nonce of the good state that came with it

log = structlog.get_logger()


class RedirectService:
    """Gives states out, and takes what browsers bring. Close it with `aclose`."""

    def __init__(
        self,
        *,
        settings: ReceiveSettings,
        rules: RulesSettings,
        newcomers: Newcomers,
        keyring: KeyRing,
        database: Database,
        verifications: VerificationStore,
        signals: Signals,
        clock: Callable[[], datetime],
    ) -> None:
        self._rule_id = settings.faceid_rule_id
        self._rules = rules
        self._newcomers = newcomers
        self._keyring = keyring
        self._database = database
        self._verifications = verifications
        self._signals = signals
        self._clock = clock
        self._gathered: set[_Hint] = set()
        self._spent: dict[str, None] = {}
        self._task: asyncio.Task[None] | None = None

    def issue(self, caller: Caller, rule_id: str | None) -> tuple[str, Ticket]:
        """A fresh state, and what it says.

        Raises:
            InvalidRequestError: neither the caller nor the settings name the rule, or it has no `redirect_state`.
        """
        rule_id = rule_id or self._rule_id
        if rule_id is None:
            raise InvalidRequestError("The RuleId is missing, and no default is set.", code="rule_id_required")
        if not self._rules.rule(rule_id).redirect_state:
            raise InvalidRequestError("The rule takes no states: it lacks redirect_state.", code="no_redirect_state")
        ticket = Ticket(
            client=caller.client,
            rule_id=rule_id,
            nonce=secrets.token_hex(_NONCE_BYTES),
            expires_at=self._clock().replace(microsecond=0) + redirect.LIFETIME,
        )
        return redirect.seal(ticket, self._keyring.mac), ticket

    async def redirected(self, biz_token: str, state: str) -> None:
        """A browser says that a verification is complete.

        With a good state that is durable when the method returns, for one token that was not known before. Anything
        else is a hint: gathered, and looked at later, so that neither its answer nor its time tells what is known.

        Raises:
            UnavailableError: the database does not answer.
        """
        ticket = redirect.unseal(state, self._keyring.macs, self._clock())
        if ticket is None or not self._rules.rule(ticket.rule_id).redirect_state:
            self._hint(biz_token, None)
        elif ticket.nonce in self._spent or not await self._begin(biz_token, ticket):
            self._hint(biz_token, ticket.nonce)

    async def aclose(self) -> None:
        """Forgets the hints that nobody has looked at yet."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _begin(self, biz_token: str, ticket: Ticket) -> bool:
        """Takes the token in as if it was called back; whether neither it nor the nonce was known."""
        now = self._clock()
        new = self._newcomers.new(biz_token, ticket.rule_id, now, client=ticket.client, nonce=ticket.nonce)
        async with self._database.write() as tx:
            added = await self._verifications.add(tx, lifecycle.called_back(new, None, None, now))
        if len(self._spent) >= _MOST_SPENT:
            self._spent.clear()
        self._spent[ticket.nonce] = None  # so that a state that is shown again and again costs no transaction
        if added:
            self._signals.send(DUE)
        return added is not None

    def _hint(self, biz_token: str, nonce: str | None) -> None:
        if len(self._gathered) < _MOST_GATHERED:
            self._gathered.add((biz_token, nonce))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._flush(), name="hints")

    async def _flush(self) -> None:
        seconds = _GATHER_SECONDS
        while self._gathered:
            await asyncio.sleep(seconds)
            seconds = _FLOOD_SECONDS
            hints, self._gathered = self._gathered, set()
            try:
                await self._wake(hints)
            except ServiceError as error:
                log.warning("hints_lost", error=type(error).__name__)

    async def _wake(self, hints: Collection[_Hint]) -> None:
        """Writes only where something changes, and lets go of the writer after each."""
        async with self._database.read() as tx:
            known = await self._verifications.find_all(tx, {biz_token for biz_token, _ in hints})
        for verification in known:
            is_same_run = verification.nonce is not None and (verification.biz_token, verification.nonce) in hints
            if (verification.registered_at or is_same_run) and self._woken(verification) != verification:
                async with self._database.write() as tx:
                    if current := await self._verifications.lock(tx, verification.biz_token):
                        await self._verifications.save(tx, current, self._woken(current))
                self._signals.send(DUE)

    def _woken(self, verification: Verification) -> Verification:
        return lifecycle.called_back(verification, None, None, self._clock())
