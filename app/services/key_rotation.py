"""Key rotation: keys under older versions of the key ring are wrapped again, so those versions can be destroyed.

Only the wrapping changes; fields and media stay encrypted under their own keys. Readers know all versions, so rotation
does not disturb them, and new data use the newest version.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app.errors import ConflictError
from app.sealing.keyring import VERSION_BYTES, KeyRing, Ring, version_of
from app.sealing.personal_data import PersonalDataCipher
from app.services.api_keys import ApiKeyService
from app.storage import key_usage
from app.storage.database import Database, Transaction

SETTLED_AFTER = timedelta(minutes=5)
"""A process that read the key ring before the rotation may use the older version for this long."""

_BATCH = 200
_COLUMNS = {
    Ring.IDENTITY: [key_usage.VERIFICATIONS, key_usage.API_KEYS],
    Ring.BIOMETRIC: [key_usage.MEDIA],
    Ring.INDEX: [key_usage.INDEXES],
}

# Renews a batch after a position in the primary key: (transaction, newest prefix, position) -> (count, next position).
# Position and next position are None at the beginning and the end.
_Renew = Callable[[Transaction, bytes, Any], Awaitable[tuple[int, Any]]]


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class KeyRotationService:
    """Counts, renews and destroys."""

    database: Database
    cipher: PersonalDataCipher
    api_keys: ApiKeyService
    clock: Callable[[], datetime]

    @property
    def _keyring(self) -> KeyRing:
        return self.cipher.keyring

    async def in_use(self, ring: Ring) -> Mapping[int, int]:
        """Returns how many keys or digests depend on each version of the ring."""
        counted: Counter[int] = Counter()
        async with self.database.read() as tx:
            for column in _COLUMNS[ring]:
                found = await tx.key_usage.count(column, VERSION_BYTES)
                counted.update({version_of(prefix): count for prefix, count in found.items()})
        return counted

    async def rotate(self, ring: Ring) -> AsyncIterator[tuple[int, int]]:
        """Adds a version, unless an earlier rotation is incomplete, and renews everything under older versions.

        Yields (done, total) after each batch.
        """
        used = await self.in_use(ring)
        if all(version == self._keyring.newest(ring) for version in used):
            self._keyring.add(ring)
        newest, done = self._keyring.newest(ring), 0
        total = sum(count for version, count in used.items() if version != newest)
        yield done, total
        renewals: Mapping[Ring, list[_Renew]] = {
            Ring.IDENTITY: [self._renew_verifications, self._renew_api_keys],
            Ring.BIOMETRIC: [self._renew_media],
            Ring.INDEX: [self._renew_indexes],
        }
        for renew in renewals[ring]:
            position, renewed = None, 0
            # Walks again after a pass that found something: a transaction in flight may have added a row behind it.
            while True:
                async with self.database.write() as tx:
                    count, position = await renew(tx, newest.to_bytes(VERSION_BYTES, "big"), position)
                renewed += count
                yield done + renewed, max(done + renewed, total)
                if position is None and count == 0:
                    break
            done += renewed

    async def destroy_unused(self, ring: Ring) -> list[int]:
        """Destroys the older versions that nothing depends on; returns their numbers.

        Raises:
            ConflictError: the newest version is too new for that.
        """
        *older, newest = self._keyring.versions(ring)
        if older and self.clock() < newest.created_at + SETTLED_AFTER:
            raise ConflictError(f"The {ring} ring was rotated within the last five minutes; try again later.")
        used = await self.in_use(ring)
        unused = [known.version for known in older if not used.get(known.version)]
        for version in unused:
            self._keyring.destroy(ring, version)
        return unused

    async def _renew_verifications(self, tx: Transaction, newest: bytes, after: int | None) -> tuple[int, int | None]:
        rows = await tx.key_usage.outdated_verifications(newest, after_id=after or 0, limit=_BATCH)
        await tx.key_usage.save_verification_keys({row.id: self.cipher.rewrapped_key(row) for row in rows})
        return len(rows), rows[-1].id if rows else None

    async def _renew_api_keys(self, tx: Transaction, newest: bytes, _: None) -> tuple[int, None]:
        """Renews all API keys at once, because there are few."""
        keys = await tx.api_keys.list()
        outdated = [key for key in keys if key.has_digest and not key.sealed_digest.startswith(newest)]
        digests = {key.id: self.api_keys.seal_digest(key, self.api_keys.open_digest(key)) for key in outdated}
        await tx.key_usage.save_api_key_digests(digests)
        return len(outdated), None

    async def _renew_media(
        self, tx: Transaction, newest: bytes, after: tuple[int, str] | None
    ) -> tuple[int, tuple[int, str] | None]:
        rows = await tx.key_usage.outdated_media(newest, after=after or (0, ""), limit=_BATCH)
        keys = {
            (owner.id, item.kind): self.cipher.wrap_media_key(owner, item, self.cipher.media_key(owner, item))
            for owner, item in rows
        }
        await tx.key_usage.save_media_keys(keys)
        return len(rows), (rows[-1][0].id, rows[-1][1].kind) if rows else None

    async def _renew_indexes(self, tx: Transaction, newest: bytes, after: int | None) -> tuple[int, int | None]:
        rows = await tx.key_usage.outdated_texts(newest, after_id=after or 0, limit=_BATCH)
        indexes = {
            owner.id: self.cipher.indexes(owner.client, self.cipher.open_text(owner, text)) for owner, text in rows
        }
        await tx.key_usage.save_indexes(indexes)
        return len(rows), rows[-1][0].id if rows else None
