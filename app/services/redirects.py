"""Browser redirects: anyone may report a token as done; an unknown token needs a signed state."""

import asyncio
import hashlib
import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from itsdangerous import BadSignature, URLSafeSerializer
from itsdangerous.encoding import base64_decode, base64_encode

from app import tasks
from app.domain import lifecycle, redirect_state
from app.domain.api_key import Actor
from app.domain.rate import RateClass
from app.domain.redirect_state import RedirectState
from app.domain.verification import State, Verification
from app.errors import ConflictError, InvalidRequestError, ServiceError
from app.observability import REDIRECTS_WITHOUT_TOKEN
from app.sealing.keyring import KeyRing
from app.services.intake import IntakeService, Notice
from app.services.rule_settings import RulesSettings
from app.storage.database import Database
from app.storage.wakeups import DUE, Wakeups

# All hints that arrive within this time share one look at the database.
_COLLECT_SECONDS = 0.02
# Between looks while hints keep arriving.
_FLOOD_SECONDS = 0.1
# Further hints are dropped: registered tokens are polled anyway.
_MAX_HINTS = 1000
_MAX_USED_NONCES = 10_000
_NONCE_BYTES = 16
_PURPOSE = "redirect_state"

# A BizToken, and the nonce of the valid state that came with it.
_Hint = tuple[str, str | None]

log = structlog.get_logger()


@dataclass(kw_only=True, repr=False, eq=False)
class RedirectService:
    """Issues states and accepts redirects. Close it with `aclose`."""

    intake: IntakeService
    rules: RulesSettings
    keyring: KeyRing
    database: Database
    wakeups: Wakeups
    clock: Callable[[], datetime]
    _hints: set[_Hint] = field(init=False, default_factory=set)
    _used_nonces: dict[str, None] = field(init=False, default_factory=dict)
    _task: asyncio.Task[None] | None = field(init=False, default=None)

    def issue(self, actor: Actor, rule_id: str | None) -> tuple[str, RedirectState]:
        """Returns a new signed state and its content.

        Raises:
            InvalidRequestError: neither the caller nor the settings name the rule, the client of the caller may not use
                it, or it has no `redirect_state`.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        self.intake.limits.admit(actor.caller, RateClass.INTAKE)
        # Without an exception for admins: the state belongs to the client of the key.
        rule_id = self.rules.usable(rule_id, actor.caller.client)
        if not self.rules.rule(rule_id).redirect_state:
            raise InvalidRequestError("redirect_state is not enabled for this rule.", code="no_redirect_state")
        state = RedirectState(
            client=actor.caller.client,
            rule_id=rule_id,
            nonce=secrets.token_hex(_NONCE_BYTES),
            expires_at=self.clock().replace(microsecond=0) + redirect_state.LIFETIME,
        )
        values = [state.client, state.rule_id, state.nonce, int(state.expires_at.timestamp())]
        return self._serializer().dumps(values), state

    async def accept(self, biz_token: str | None, signed_state: str | None) -> None:
        """Accepts a redirect: a browser says that a verification is complete. Counts valid states without a token.

        With a valid state one unknown token is durable when the method returns. Everything else is a hint, collected
        and checked later, so neither the answer nor its time reveals which tokens exist.

        Raises:
            UnavailableError: the database does not answer.
        """
        state = self._verified(signed_state) if signed_state else None
        if biz_token is None:
            if state:
                REDIRECTS_WITHOUT_TOKEN.labels(state.rule_id).inc()
                log.warning("redirect_without_token", rule_id=state.rule_id)
        elif state is None or not self.rules.rule(state.rule_id).redirect_state:
            self._add_hint(biz_token, None)
        elif state.nonce in self._used_nonces or not await self._create(biz_token, state):
            self._add_hint(biz_token, state.nonce)

    async def aclose(self) -> None:
        """Drops the hints that have not been checked yet."""
        if self._task:
            await tasks.end(self._task)

    def _serializer(self) -> URLSafeSerializer:
        """Signs with the newest version of the index ring and verifies with all versions."""
        return URLSafeSerializer(
            list(self.keyring.macs(_PURPOSE)), salt=_PURPOSE, signer_kwargs={"digest_method": hashlib.sha256}
        )

    def _verified(self, signed_state: str) -> RedirectState | None:
        """Returns the content of a state; None if it is not ours or has expired."""
        if not re.fullmatch(redirect_state.PATTERN, signed_state):
            return None
        try:
            client, rule_id, nonce, expires_at = self._serializer().loads(signed_state)
        except BadSignature:
            return None
        # base64 ignores the last bits of its last character. Only one spelling of a signature is accepted.
        signature = signed_state.rpartition(".")[2]
        if base64_encode(base64_decode(signature)).decode() != signature:
            return None
        state = RedirectState(
            client=client, rule_id=rule_id, nonce=nonce, expires_at=datetime.fromtimestamp(expires_at, UTC)
        )
        return state if self.clock() < state.expires_at else None

    async def _create(self, biz_token: str, state: RedirectState) -> bool:
        """Accepts the token as called back; returns False if the state changes nothing.

        The state was used before, the client may not use its rule any more, or the token needs no further state.
        """
        now = self.clock()
        notice = Notice(
            biz_token=biz_token,
            client=state.client,
            rule_id=state.rule_id,
            at=now,
            change=lambda new: lifecycle.called_back(new, None, now),
            nonce=state.nonce,
        )
        try:
            await self.intake.accept(notice)
            is_new = True
        except (ConflictError, InvalidRequestError):
            is_new = False
        # A state that is presented again and again costs no further transaction.
        if len(self._used_nonces) >= _MAX_USED_NONCES:
            self._used_nonces.clear()
        self._used_nonces[state.nonce] = None
        return is_new

    def _add_hint(self, biz_token: str, nonce: str | None) -> None:
        if len(self._hints) < _MAX_HINTS:
            self._hints.add((biz_token, nonce))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._check_hints(), name="hints")

    async def _check_hints(self) -> None:
        seconds = _COLLECT_SECONDS
        while self._hints:
            await asyncio.sleep(seconds)
            seconds = _FLOOD_SECONDS
            hints, self._hints = self._hints, set()
            try:
                await self._wake(hints)
            except ServiceError as error:
                log.warning("hints_lost", error=type(error).__name__)

    async def _wake(self, hints: Collection[_Hint]) -> None:
        """Wakes the verifications of the hinted tokens that are registered or came with the same state.

        Writes only where something changes, in one short transaction each.
        """
        async with self.database.read() as tx:
            known = await tx.verifications.find_all({biz_token for biz_token, _ in hints})
        for verification in known:
            is_same_run = verification.nonce is not None and (verification.biz_token, verification.nonce) in hints
            if (verification.registered_at or is_same_run) and self._called_back(verification) != verification:
                async with self.database.write() as tx:
                    for current in await tx.verifications.lock_by_id([verification.id]):
                        await tx.verifications.save(current, self._called_back(current), self.clock())
                self.wakeups.send(DUE)

    def _called_back(self, verification: Verification) -> Verification:
        # Anyone can send a hint. Reviving an expired verification costs a call, so it takes a key or a signature.
        if verification.state is State.EXPIRED:
            return verification
        return lifecycle.called_back(verification, None, self.clock(), is_keyless=True)
