"""Key rotation: keys under older versions of the key ring are wrapped again, so those versions can be destroyed.

Only the wrapping changes; fields and media stay encrypted under their own keys. Readers know all versions, so rotation
does not disturb them, and new data use the newest version.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from app.domain.verification import Verification
from app.errors import ConflictError
from app.observability import digest_of
from app.sealing.aead import TamperedDataError
from app.sealing.endpoint_secrets import SecretCipher
from app.sealing.keyring import VERSION_BYTES, KeyRing, Ring, version_of
from app.sealing.personal_data import PersonalDataCipher
from app.services.api_keys import ApiKeyService
from app.services.read import StoredResult, with_results
from app.storage import key_usage
from app.storage.database import Database, Transaction

SETTLED_AFTER = timedelta(minutes=5)
"""A process that read the key ring before the rotation may use the older version for this long."""

_BATCH = 200
_COLUMNS = {
    Ring.IDENTITY: [key_usage.VERIFICATIONS, key_usage.API_KEYS, key_usage.ENDPOINTS, key_usage.PREVIOUS_SECRETS],
    Ring.BIOMETRIC: [key_usage.MEDIA],
    Ring.INDEX: [key_usage.INDEXES],
    Ring.AUDIT: [key_usage.LINKS],
}

_MAX_NAMES = 100


@dataclass(slots=True)
class Progress:
    """The progress of a rotation: `done` of `total` values are renewed, and `altered` ones were skipped.

    `names` are the rows of the first altered values.
    """

    total: int
    done: int = 0
    altered: int = 0
    names: list[str] = field(default_factory=list)

    @contextmanager
    def skipping(self, name: str) -> Iterator[None]:
        """Skips and names a value that was altered."""
        try:
            yield
        except TamperedDataError:
            self.altered += 1
            if len(self.names) < _MAX_NAMES:
                self.names.append(name)


# Renews a batch after a position in the primary key: (transaction, newest prefix, position, progress) -> next position.
# Position and next position are None at the beginning and the end.
_Renew = Callable[[Transaction, bytes, Any, Progress], Awaitable[Any]]


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class KeyRotationService:
    """Counts, renews and destroys."""

    database: Database
    cipher: PersonalDataCipher
    api_keys: ApiKeyService
    endpoint_secrets: SecretCipher
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

    async def rotate(self, ring: Ring) -> AsyncIterator[Progress]:
        """Adds a version, unless an earlier rotation is incomplete, and renews everything under older versions.

        Altered values stay under their version. Yields the progress after each batch.
        """
        progress, newest = Progress(0), self._keyring.newest(ring)
        if any(version != newest for version in await self.in_use(ring)):
            async for progress in self._renew_outdated(ring):
                yield progress
        # Values that cannot be renewed do not make a rotation incomplete.
        if not progress.done:
            self._keyring.add(ring)
            async for progress in self._renew_outdated(ring):
                yield progress

    async def _renew_outdated(self, ring: Ring) -> AsyncIterator[Progress]:
        newest = self._keyring.newest(ring)
        used = await self.in_use(ring)
        progress = Progress(sum(count for version, count in used.items() if version != newest))
        yield progress
        renewals: Mapping[Ring, list[_Renew]] = {
            Ring.IDENTITY: [
                self._renew_verifications,
                self._renew_api_keys,
                self._renew_endpoints,
                self._seal_messages,
            ],
            Ring.BIOMETRIC: [self._renew_media],
            Ring.INDEX: [self._renew_indexes],
            # Links stay under their version, because each one continues the hash before it.
            Ring.AUDIT: [],
        }
        for renew in renewals[ring]:
            position, is_over = None, False
            while not is_over:
                async with self.database.write() as tx:
                    position = await renew(tx, newest.to_bytes(VERSION_BYTES, "big"), position, progress)
                is_over = position is None
                progress.total = max(progress.total, progress.done + progress.altered)
                yield progress

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

    async def _renew_verifications(
        self, tx: Transaction, newest: bytes, after: int | None, progress: Progress
    ) -> int | None:
        """Renews keys. Rows from before the digests get one, of the result as it is stored."""
        rows = await tx.key_usage.outdated_verifications(newest, after_id=after or 0, limit=_BATCH)
        renewed = []
        for stored in await self._with_results_to_bind(tx, rows):
            row = stored.verification
            with progress.skipping(_name(row)):
                if stored.is_malformed:
                    raise self.cipher.tampered(row)
                renewed.append(self.cipher.rewrapped(row, stored.text, stored.media))
        await tx.key_usage.save_verifications(renewed)
        progress.done += len(renewed)
        return rows[-1].id if rows else None

    async def _with_results_to_bind(self, tx: Transaction, rows: Sequence[Verification]) -> Sequence[StoredResult]:
        old = [row for row in rows if row.sealed_key and not self._keyring.has_digest(row.sealed_key)]
        bound = {row.id: StoredResult(row, is_malformed=row.is_malformed) for row in rows}
        return [*(bound | {one.verification.id: one for one in await with_results(tx, old, sealed=True)}).values()]

    async def _renew_api_keys(self, tx: Transaction, newest: bytes, _: None, progress: Progress) -> None:
        """Renews all API keys at once, because there are few."""
        digests = {}
        for key in await tx.api_keys.list():
            if key.has_digest and not key.sealed_digest.startswith(newest):
                with progress.skipping(f"API key {key.id}"):
                    digests[key.id] = self.api_keys.seal_digest(key, self.api_keys.open_digest(key))
        await tx.key_usage.save_api_key_digests(digests)
        progress.done += len(digests)

    async def _renew_endpoints(
        self, tx: Transaction, newest: bytes, after_id: str | None, progress: Progress
    ) -> str | None:
        """Renews the secrets of endpoints. An earlier secret that no longer signs is removed."""
        rows = await tx.webhook_endpoints.lock_outdated(newest, after_id=after_id or "", limit=_BATCH)
        for row in rows:
            with progress.skipping(f"webhook endpoint {row.id}"):
                await tx.webhook_endpoints.save(row, self.endpoint_secrets.moved(row, row, self.clock()))
                progress.done += 1 + (row.previous_secret is not None)
        return rows[-1].id if rows else None

    async def _seal_messages(self, tx: Transaction, _: bytes, after: int | None, progress: Progress) -> int | None:
        """Seals the messages that earlier versions stored readable."""
        ids = await tx.results.list_readable(after_id=after or 0, limit=_BATCH)
        for stored in await with_results(tx, await tx.verifications.lock_by_id(ids), sealed=True):
            row = stored.verification
            with progress.skipping(_name(row)):
                if detection := self.cipher.open_verified_text(row, stored.text):
                    text = self.cipher.seal_text(row, detection)
                    await tx.results.remove(row.id, text=True, kinds=())
                    await tx.results.add_all([(row.id, text, ())])
                    await tx.key_usage.save_verifications([self.cipher.with_digest(row, row, text=text)])
                    progress.done += 1
        return ids[-1] if ids else None

    async def _renew_media(
        self, tx: Transaction, newest: bytes, after: tuple[int, str] | None, progress: Progress
    ) -> tuple[int, str] | None:
        rows = await tx.key_usage.outdated_media(newest, after=after or (0, ""), limit=_BATCH)
        keys = {}
        for owner, kind, item in rows:
            with progress.skipping(f"{kind} of {_name(owner)}"):
                if item is None:
                    raise self.cipher.tampered(owner)
                keys[owner.id, item.kind] = self.cipher.wrap_media_key(owner, item, self.cipher.media_key(owner, item))
        await tx.key_usage.save_media_keys(keys)
        progress.done += len(keys)
        return (rows[-1][0].id, rows[-1][1]) if rows else None

    async def _renew_indexes(self, tx: Transaction, newest: bytes, after: int | None, progress: Progress) -> int | None:
        rows = await tx.key_usage.outdated_texts(newest, after_id=after or 0, limit=_BATCH)
        indexes, bound = {}, []
        for owner, text in rows:
            with progress.skipping(_name(owner)):
                indexes[owner.id] = self.cipher.indexes(owner.client, self.cipher.open_text(owner, text))
                bound.append(self.cipher.with_digest(owner, owner, indexes=indexes[owner.id]))
        await tx.key_usage.save_indexes(indexes)
        await tx.key_usage.save_verifications(bound)
        progress.done += len(indexes)
        return rows[-1][0].id if rows else None


def _name(verification: Verification) -> str:
    """Returns the name of a row for the operator: the log has the same id and token."""
    return f"verification {verification.id} (token {digest_of(verification.biz_token)})"
