"""Rotation: what older versions of the key ring have sealed is sealed anew, so that they can be destroyed.

Only what wraps is made anew: fields and media stay as they are, under their own keys. Readers know all versions, so
that they notice nothing; what is sealed meanwhile is sealed by the newest.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from app.domain.access import ApiKey
from app.domain.detection import Medium
from app.errors import ConflictError
from app.sealing.keyring import Ring
from app.services.vault import Vault
from app.storage import sealed
from app.storage.database import Database, Transaction
from app.storage.keys import KeyStore
from app.storage.results import ResultStore
from app.storage.sealed import SealedStore

SETTLED_AFTER = timedelta(minutes=5)  # a process that read the ring before may still be sealing by the older version
_BATCH = 200


class RotateService:
    """Counts, seals anew and destroys."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        sealed: SealedStore,
        keys: KeyStore,
        results: ResultStore,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._vault = vault
        self._keyring = vault.keyring
        self._sealed = sealed
        self._keys = keys
        self._results = results
        self._clock = clock

    async def in_use(self, ring: Ring) -> Mapping[int, int]:
        """How many keys or digests each version of the ring has sealed."""
        counted: Counter[int] = Counter()
        async with self._database.read() as tx:
            for column in _COLUMNS[ring]:
                counted.update(await self._sealed.count(tx, column))
        return counted

    async def rotate(self, ring: Ring) -> AsyncIterator[tuple[int, int]]:
        """Makes a newer version, unless there is one that not all is sealed by yet, and seals by it what is not.

        Answers again and again how many of how many are done.
        """
        used = await self.in_use(ring)
        if all(version == self._keyring.newest(ring) for version in used):
            self._keyring.add(ring)
        newest, done = self._keyring.newest(ring), 0
        total = sum(count for version, count in used.items() if version != newest)
        yield done, total
        for column, renew in zip(_COLUMNS[ring], self._renewals(ring), strict=True):
            while count := await self._renew_batch(column, newest, renew):
                done += count
                yield done, max(done, total)

    async def destroy_unused(self, ring: Ring) -> list[int]:
        """Destroys the older versions that nothing needs any more; answers their numbers.

        Raises:
            ConflictError: the newest one is too new for that.
        """
        *older, newest = self._keyring.versions(ring)
        if older and self._clock() < newest.created_at + SETTLED_AFTER:
            raise ConflictError(f"The {ring} ring was rotated within the last five minutes: try again later.")
        used = await self.in_use(ring)
        unused = [known.version for known in older if not used.get(known.version)]
        for version in unused:
            self._keyring.destroy(ring, version)
        return unused

    def _renewals(self, ring: Ring) -> Sequence["_Renew"]:
        renewals: Mapping[Ring, Sequence[_Renew]] = {
            Ring.IDENTITY: [self._renew_verification, self._renew_api_key],
            Ring.BIOMETRIC: [self._renew_medium],
            Ring.INDEX: [self._renew_indexes],
        }
        return renewals[ring]

    async def _renew_batch(self, column: sealed.Sealed, newest: int, renew: "_Renew") -> int:
        async with self._database.write() as tx:
            rows = await self._sealed.outdated(tx, column, newest, limit=_BATCH)
            for row in rows:
                await self._sealed.replace(tx, column, row, await renew(tx, row._asdict()))
        return len(rows)

    async def _renew_verification(self, tx: Transaction, row: Mapping[str, Any]) -> Mapping[str, Any]:
        owner = (await self._sealed.owners(tx, [row["id"]]))[row["id"]]
        return {"sealed_key": self._vault.rewrapped_key(owner)}

    async def _renew_api_key(self, tx: Transaction, row: Mapping[str, Any]) -> Mapping[str, Any]:
        key: ApiKey | None = await self._keys.find(tx, row["id"])
        if key is None:
            return {}
        digest = self._keyring.unwrap(Ring.IDENTITY, key.sealed_digest, *key.rights)
        return {"sealed_digest": self._keyring.wrap(Ring.IDENTITY, digest, *key.rights)}

    async def _renew_medium(self, tx: Transaction, row: Mapping[str, Any]) -> Mapping[str, Any]:
        number = row["verification_id"]
        owner = (await self._sealed.owners(tx, [number]))[number]
        media: Mapping[str, Medium] = {
            medium.kind: medium for medium in (await self._results.media(tx, [number]))[number]
        }
        medium = media[row["kind"]]
        return {"sealed_key": self._vault.wrap_medium_key(owner, medium, self._vault.medium_key(owner, medium))}

    async def _renew_indexes(self, tx: Transaction, row: Mapping[str, Any]) -> Mapping[str, Any]:
        number = row["verification_id"]
        owner = (await self._sealed.owners(tx, [number]))[number]
        text = (await self._results.texts(tx, [number], sealed=True))[number]
        return self._vault.indexes(owner.client, self._vault.open_text(owner, text))


_Renew = Callable[[Transaction, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]

_COLUMNS = {
    Ring.IDENTITY: [sealed.VERIFICATIONS, sealed.API_KEYS],
    Ring.BIOMETRIC: [sealed.MEDIA],
    Ring.INDEX: [sealed.INDEXES],
}
