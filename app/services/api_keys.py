"""API keys: created once, shown once, checked on every request."""

import hmac
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from app.domain import api_key
from app.domain.api_key import Actor, ApiKey, Network, Scope
from app.domain.audit import Action
from app.errors import NotFoundError, UnauthenticatedError
from app.sealing.aead import TamperedDataError
from app.sealing.alarm import Alarm
from app.sealing.keyring import KeyRing, Ring
from app.services.audit import AuditService
from app.services.batching import Batcher
from app.services.visibility import require_scope
from app.storage.database import Database

# Below the 5 s within which every process rejects a revoked key.
_CACHE_SECONDS = 3.0
_CACHE_SIZE = 1000


@dataclass(frozen=True, slots=True)
class _CachedKey:
    """A key, the digest of its secret, and when it was read (monotonic)."""

    key: ApiKey
    digest: bytes = field(repr=False)
    read_at: float


@dataclass(kw_only=True, repr=False, eq=False)
class ApiKeyService:
    """Creates, lists, revokes and authenticates API keys."""

    database: Database
    keyring: KeyRing
    audit: AuditService
    clock: Callable[[], datetime]
    alarm: Alarm = field(default_factory=Alarm)
    _cache: dict[str, _CachedKey] = field(init=False, default_factory=dict)
    _read: Batcher[str, _CachedKey] = field(init=False)

    def __post_init__(self) -> None:
        self._read = Batcher(self._read_batch)

    async def create(
        self,
        actor: Actor,
        name: str,
        scopes: Iterable[Scope],
        *,
        client: str,
        valid_for: timedelta,
        networks: Iterable[Network] = (),
    ) -> tuple[ApiKey, str]:
        """Creates a key; returns it and the text that its holder sends, which is stored nowhere.

        Args:
            actor: who creates it.
            name: who will use it.
            scopes: what it allows.
            client: whose verifications it can see.
            valid_for: how long it is valid.
            networks: where it may be used from; empty for anywhere.

        Raises:
            ForbiddenError: the actor is no admin.
        """
        require_scope(actor.caller, Scope.ADMIN)
        key_id, secret, text = api_key.new_key()
        now = self.clock()
        key = ApiKey(
            id=key_id,
            name=name,
            client=client,
            scopes=frozenset(scopes),
            sealed_digest=b"",
            created_at=now,
            expires_at=now + valid_for,
            networks=tuple(networks),
        )
        key = replace(key, sealed_digest=self.seal_digest(key, api_key.digest(secret)))
        created = self.audit.describe(actor, Action.KEY_CREATED, subject=key_id, fields=sorted(key.scopes))
        async with self.database.write() as tx:
            await tx.api_keys.add(key)
            await self.audit.record(tx, created)
        return key, text

    async def list(self, actor: Actor) -> Sequence[ApiKey]:
        """Returns all keys, including expired and revoked ones, oldest first.

        Raises:
            ForbiddenError: the actor is no admin.
        """
        require_scope(actor.caller, Scope.ADMIN)
        async with self.database.read() as tx:
            return await tx.api_keys.list()

    async def revoke(self, actor: Actor, key_id: str) -> None:
        """Revokes a key for good: its digest is destroyed, and a restored row of it is rejected.

        Raises:
            ForbiddenError: the actor is no admin.
            NotFoundError: there is no active key with this id.
        """
        require_scope(actor.caller, Scope.ADMIN)
        async with self.database.write() as tx:
            if not await tx.api_keys.revoke(key_id, self.clock()):
                raise NotFoundError(f"There is no active API key with id {key_id}.")
            await self.audit.record(tx, self.audit.describe(actor, Action.KEY_REVOKED, subject=key_id))
        self._cache.pop(key_id, None)
        await self.database.truncate_log()

    async def authenticate(self, text: str, *, address: str | None = None) -> ApiKey:
        """Returns the key for the text that its holder sent from this address.

        Raises:
            UnauthenticatedError: the key is unknown, expired, revoked, or not valid from this address.
        """
        parsed = api_key.parse(text)
        if parsed is None:
            raise _refusal("malformed")
        cached = await self._find(parsed[0])
        if not hmac.compare_digest(cached.digest, api_key.digest(parsed[1])):
            raise _refusal("secret", cached.key.id)
        self._require_usable(cached.key, address)
        return cached.key

    async def confirm(self, actor: Actor) -> None:
        """Checks the key of a held request again. Callers without a key need no check. The audit records a refusal.

        Raises:
            UnauthenticatedError: the key is no longer what it was, has ended, or is not valid from this address.
        """
        known = actor.caller
        if not isinstance(known, ApiKey):
            return
        try:
            key = await self.current(known.id, actor.address)
            if key.bound_values != known.bound_values:
                raise _refusal("altered", known.id)
        except UnauthenticatedError as error:
            self.audit.report_refused_authentication(error, address=actor.address, request_id=actor.request_id)
            raise

    async def current(self, key_id: str, address: str | None) -> ApiKey:
        """Returns a key as it is now, for a caller at this address that has proven it before.

        Raises:
            UnauthenticatedError: the key has ended or is not valid from this address.
        """
        key = (await self._find(key_id)).key
        self._require_usable(key, address)
        return key

    def _require_usable(self, key: ApiKey, address: str | None) -> None:
        if not key.is_active(self.clock()):
            raise _refusal("revoked" if key.revoked_at else "expired", key.id)
        if not key.allows_address(address):
            raise _refusal("network", key.id)

    def seal_digest(self, key: ApiKey, digest: bytes) -> bytes:
        """Seals the digest of a secret, bound to the rights of its key."""
        return self.keyring.wrap(Ring.IDENTITY, digest, *key.bound_values)

    def open_digest(self, key: ApiKey) -> bytes:
        """Returns the digest of a key's secret.

        Raises:
            TamperedDataError: a right of the key was changed in the database. Raises the alarm as well.
        """
        try:
            return self.keyring.unwrap(Ring.IDENTITY, key.sealed_digest, *key.bound_values)
        except TamperedDataError:
            self.alarm.report_key(key.id)
            raise

    async def _find(self, key_id: str) -> _CachedKey:
        return self._cached(key_id) or await self._read(key_id)

    def _cached(self, key_id: str) -> _CachedKey | None:
        cached = self._cache.get(key_id)
        is_fresh = cached and time.monotonic() - cached.read_at < _CACHE_SECONDS
        return cached if cached and is_fresh and self.keyring.knows(Ring.IDENTITY, cached.key.sealed_digest) else None

    async def _read_batch(self, key_ids: Sequence[str]) -> Sequence[_CachedKey | Exception]:
        """Reads each key once, however many requests need it. Held requests check their keys at the same time."""
        read: dict[str, _CachedKey | Exception] = {}
        async with self.database.read() as tx:
            for key_id in set(key_ids):
                key = await tx.api_keys.find(key_id)
                # The row of the key may have been restored. The record of its revocation cannot be removed unnoticed.
                is_revoked = await tx.audit.has(Action.KEY_REVOKED, key_id)
                read[key_id] = _refusal("revoked", key_id) if key and is_revoked else self._opened(key)
        return [read[key_id] for key_id in key_ids]

    def _opened(self, key: ApiKey | None) -> _CachedKey | Exception:
        """Opens the digest of a key and keeps both in the cache."""
        if key is None:
            return _refusal("unknown")
        try:
            digest = self.open_digest(key)
        except TamperedDataError:
            return _refusal("altered", key.id)
        if len(self._cache) >= _CACHE_SIZE:
            self._cache.clear()
        cached = self._cache[key.id] = _CachedKey(key, digest, time.monotonic())
        return cached


def _refusal(reason: str, key_id: str = "") -> UnauthenticatedError:
    """Returns the error for a rejected key, which is the same for callers in all cases."""
    return UnauthenticatedError(
        "The API key is unknown, expired, revoked, or not for this network.", reason=reason, key_id=key_id
    )
