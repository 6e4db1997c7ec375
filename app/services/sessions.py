"""Signs in to the console, and finds the session of a request."""

import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from pydantic import BaseModel, field_validator

from app.domain import session
from app.domain.address import network_of
from app.domain.api_key import Actor, Caller, Scope
from app.domain.audit import Action
from app.domain.rate import Rate
from app.domain.session import ConsoleSession
from app.errors import NotFoundError, TooManyRequestsError, UnauthenticatedError
from app.sealing.aead import TamperedDataError
from app.sealing.keyring import KeyRing, Ring
from app.services.api_keys import ApiKeyService
from app.services.audit import AuditService
from app.services.visibility import require_scope
from app.storage.database import Database

# Failed ones, for each network that one sender controls: five at once, then one in twelve seconds.
_ATTEMPTS = Rate(interval_ns=12_000_000_000, burst=5)
_MAX_NETWORKS = 10_000


class ConsoleSettings(BaseModel):
    """Whether the console is served, and the time zone of its pages."""

    console: bool = True
    console_time_zone: str = "Asia/Shanghai"

    @field_validator("console_time_zone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        # A KeyError is an unknown name; the others are names that no file can have.
        except (KeyError, OSError, ValueError):
            raise ValueError("it must be a time zone of the IANA database, like Asia/Shanghai") from None
        return name


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session and the caller behind it, with the rights that it has now."""

    session: ConsoleSession
    caller: Caller


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class SessionService:
    """Opens, finds and ends sessions. Args named `address` are the network address of the browser.

    `grants_digest` is the digest of the settings that grant rights to sessions without a key. These end when it
    changes.
    """

    database: Database
    keyring: KeyRing
    api_keys: ApiKeyService
    audit: AuditService
    clock: Callable[[], datetime]
    grants_digest: str = ""
    now_ns: Callable[[], int] = time.monotonic_ns
    _full_at_ns: dict[str | None, int] = field(init=False, default_factory=dict)

    async def sign_in(self, key_text: str, *, address: str | None, request_id: str) -> str:
        """Opens a session for the holder of an API key; returns its id, which only the browser keeps.

        The audit records it, and a refusal too.

        Raises:
            TooManyRequestsError: too many attempts from this network have failed.
            UnauthenticatedError: the key is unknown, expired, revoked, or not valid from this address.
        """
        self.require_attempt(address)
        try:
            key = await self.api_keys.authenticate(key_text, address=address)
        except UnauthenticatedError as error:
            self.refuse(error, address=address, request_id=request_id)
            raise
        return await self.open(Actor(caller=key, request_id=request_id, address=address), key_id=key.id)

    def require_attempt(self, address: str | None) -> None:
        """Checks that this network may attempt a sign-in.

        Raises:
            TooManyRequestsError: too many attempts from it have failed.
        """
        now_ns = self.now_ns()
        full_at = self._full_at_ns.get(network_of(address), now_ns)
        if _ATTEMPTS.take(full_at, now_ns) is None:
            seconds = _ATTEMPTS.standing(full_at, now_ns).next_seconds
            raise TooManyRequestsError(f"Too many failed attempts; retry after {seconds} s.", retry_after=seconds)

    def refuse(self, error: UnauthenticatedError, *, address: str | None, request_id: str) -> None:
        """Counts a failed attempt of this network. The audit records it."""
        network, now_ns = network_of(address), self.now_ns()
        if len(self._full_at_ns) >= _MAX_NETWORKS:
            self._full_at_ns.clear()
        # Attempts at the same time may be more than the burst.
        full_at = max(self._full_at_ns.get(network, now_ns), now_ns) + _ATTEMPTS.interval_ns
        self._full_at_ns[network] = min(full_at, now_ns + _ATTEMPTS.burst * _ATTEMPTS.interval_ns)
        self.audit.report_refused_authentication(error, address=address, request_id=request_id)

    async def open(self, actor: Actor, *, key_id: str | None) -> str:
        """Opens a session for an authenticated caller; returns its id. Removes expired sessions as well."""
        session_id, now, caller = session.new_id(), self.clock(), actor.caller
        new = ConsoleSession(
            id_hash=session.hash_of(session_id),
            key_id=key_id,
            caller_id=caller.id,
            name=caller.name,
            client=caller.client,
            scopes=caller.scopes,
            created_at=now,
            seen_at=now,
            expires_at=now + (session.LIFETIME if key_id else session.GRANTED_LIFETIME),
        )
        sealed = self.keyring.wrap(Ring.IDENTITY, new.id_hash, *self._bound_values(new))
        async with self.database.write() as tx:
            await tx.sessions.remove_expired(now)
            await tx.sessions.add(replace(new, sealed_hash=sealed))
            await self.audit.record(tx, self.audit.describe(actor, Action.SIGN_IN))
        return session_id

    async def find(self, session_id: str, *, address: str | None, request_id: str) -> SignedIn:
        """Returns the session of a request, and its caller. A key behind it is checked every few seconds.

        Raises:
            UnauthenticatedError: the session or its key has ended, or the key is not valid from this address.
        """
        id_hash, now = session.hash_of(session_id), self.clock()
        async with self.database.read() as tx:
            known = await tx.sessions.find(id_hash)
        if known is None or not known.is_active(now) or not self._is_ours(known):
            raise UnauthenticatedError("The session has ended. Sign in again.", reason="session")
        signed_in = SignedIn(known, await self._caller(known, address, request_id))
        if known.must_be_noticed(now):
            async with self.database.write() as tx:
                await tx.sessions.notice(id_hash, now)
        return signed_in

    async def sign_out(self, signed_in: SignedIn, actor: Actor) -> None:
        """Ends a session. The audit records it."""
        async with self.database.write() as tx:
            await tx.sessions.remove(signed_in.session.id_hash)
            await self.audit.record(tx, self.audit.describe(actor, Action.SIGN_OUT))

    async def list(self, actor: Actor) -> Sequence[ConsoleSession]:
        """Returns the sessions that have not ended, newest first, at most 1,000.

        Raises:
            ForbiddenError: the actor is no admin.
        """
        require_scope(actor.caller, Scope.ADMIN)
        async with self.database.read() as tx:
            found = await tx.sessions.list()
        return [known for known in found if known.is_active(self.clock()) and self._is_ours(known)]

    async def end_all(self, actor: Actor, caller_id: str) -> int:
        """Ends all sessions of an API key or a person; returns how many. The audit records it.

        Raises:
            ForbiddenError: the actor is no admin.
            NotFoundError: there are none.
        """
        require_scope(actor.caller, Scope.ADMIN)
        async with self.database.write() as tx:
            count = await tx.sessions.remove_all(caller_id)
            if not count:
                raise NotFoundError("There are no sessions of this API key or person.")
            await self.audit.record(tx, self.audit.describe(actor, Action.SIGN_OUT, subject=caller_id))
        return count

    def _is_ours(self, known: ConsoleSession) -> bool:
        """Returns whether this service made the session: no row that was inserted or changed by others is one."""
        try:
            sealed = self.keyring.unwrap(Ring.IDENTITY, known.sealed_hash, *self._bound_values(known))
        except TamperedDataError:
            return False
        return hmac.compare_digest(sealed, known.id_hash)

    def _bound_values(self, known: ConsoleSession) -> Sequence[str]:
        return [*known.bound_values, *([] if known.key_id else [self.grants_digest])]

    async def _caller(self, known: ConsoleSession, address: str | None, request_id: str) -> Caller:
        if known.key_id is None:
            return Caller(id=known.caller_id, name=known.name, client=known.client, scopes=known.scopes)
        try:
            return await self.api_keys.current(known.key_id, address)
        except UnauthenticatedError as error:
            self.audit.report_refused_authentication(error, address=address, request_id=request_id)
            raise
