"""API keys: made once, shown once, checked on every request."""

import hmac
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from app.domain import access
from app.domain.access import OPERATOR, ApiKey, Caller, Network, Scope
from app.domain.audit import Action
from app.errors import NotFoundError, UnauthenticatedError
from app.sealing.aead import AlteredError
from app.sealing.keyring import KeyRing, Ring
from app.services.audit import AuditService
from app.storage.database import Database, Transaction
from app.storage.keys import KeyStore

_CACHE_SECONDS = 3.0  # a revoked key is refused everywhere within 5 s
_CACHE_SIZE = 1000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Known:
    """A key as it was read at an instant (monotonic), and the digest that its row has of the secret."""

    key: ApiKey
    digest: bytes
    since: float


class AccessService:
    """Creates, lists, revokes and recognises keys."""

    def __init__(
        self,
        *,
        database: Database,
        keys: KeyStore,
        keyring: KeyRing,
        audit: AuditService,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._keys = keys
        self._keyring = keyring
        self._audit = audit
        self._clock = clock
        self._cache: dict[str, _Known] = {}

    async def create(
        self,
        name: str,
        scopes: Iterable[Scope],
        *,
        client: str,
        valid_for: timedelta,
        networks: Iterable[Network] = (),
        by: Caller = OPERATOR,
    ) -> tuple[ApiKey, str]:
        """A new key, and the text by which its holder is recognised: it is stored nowhere.

        Args:
            name: who will use it.
            scopes: what it allows.
            client: whose verifications it sees.
            valid_for: how long.
            networks: where it may be used from; none for anywhere.
            by: who makes it.
        """
        key_id, secret, text = access.mint()
        now = self._clock()
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
        key = replace(key, sealed_digest=self._keyring.wrap(Ring.IDENTITY, access.digest(secret), *key.rights))
        async with self._database.write() as tx:
            await self._keys.add(tx, key)
            await self._record(tx, by, Action.KEY_CREATED, key_id, key.scopes)
        return key, text

    async def list(self) -> Sequence[ApiKey]:
        """All keys that ever were, the oldest first."""
        async with self._database.read() as tx:
            return await self._keys.list(tx)

    async def revoke(self, key_id: str, by: Caller = OPERATOR) -> None:
        """Ends a key.

        Raises:
            NotFoundError: there is no living key of this id.
        """
        async with self._database.write() as tx:
            if not await self._keys.revoke(tx, key_id, self._clock()):
                raise NotFoundError(f"There is no living key {key_id}.")
            await self._record(tx, by, Action.KEY_REVOKED, key_id)
        self._cache.pop(key_id, None)

    async def _record(
        self, tx: Transaction, by: Caller, action: Action, key_id: str, scopes: Iterable[Scope] = ()
    ) -> None:
        await self._audit.record(tx, by, action, subject=key_id, fields=sorted(scopes), request_id=uuid.uuid4().hex)

    async def authenticate(self, text: str, *, address: str | None = None) -> ApiKey:
        """The key whose holder sent this text from this address.

        Raises:
            UnauthenticatedError: it is none of ours, not any more, or not from there.
        """
        parsed = access.parse(text)
        known = await self._find(parsed[0]) if parsed else None
        if (
            parsed is None
            or known is None
            or not hmac.compare_digest(known.digest, access.digest(parsed[1]))
            or not known.key.is_alive(self._clock())
            or not known.key.is_good_from(address)
        ):
            raise UnauthenticatedError("The API key is unknown, expired, revoked, or not for this network.")
        return known.key

    async def _find(self, key_id: str) -> _Known | None:
        known = self._cache.get(key_id)
        is_fresh = known and time.monotonic() - known.since < _CACHE_SECONDS
        if known and is_fresh and self._keyring.knows(Ring.IDENTITY, known.key.sealed_digest):
            return known
        async with self._database.read() as tx:
            key = await self._keys.find(tx, key_id)
        try:
            digest = self._keyring.unwrap(Ring.IDENTITY, key.sealed_digest, *key.rights) if key else None
        except AlteredError:
            log.error("key_altered", key_id=key_id)
            return None
        if key is None or digest is None:
            return None
        if len(self._cache) >= _CACHE_SIZE:
            self._cache.clear()
        known = self._cache[key_id] = _Known(key, digest, time.monotonic())
        return known
