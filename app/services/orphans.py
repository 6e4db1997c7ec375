"""Removes what dead workers left behind: spool files, and objects that were put but never recorded."""

from dataclasses import dataclass
from datetime import timedelta

import structlog

from app.services.media_guard import MediaGuard
from app.storage.database import Database
from app.storage.media import MediaStore

ORPHAN_AGE = timedelta(hours=1)
"""Far above any lease: a worker that put an object this long ago has recorded it or never will."""

_BATCH = 500
# More orphans than both of these are unusual: the database may be a wrong or an older one.
_USUAL_COUNT, _USUAL_SHARE = 20, 0.5

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FoundOrphans:
    """The keys of the orphans, and the number of objects that were old enough to be checked."""

    keys: list[str]
    checked: int

    @property
    def is_unusual(self) -> bool:
        """Whether so many objects are orphans that the database may be the wrong one."""
        return len(self.keys) > _USUAL_COUNT and len(self.keys) > _USUAL_SHARE * self.checked


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class OrphanService:
    """Sweeps orphans."""

    database: Database
    media: MediaStore
    media_guard: MediaGuard

    async def sweep(self) -> int:
        """Checks the spool and the whole media store once; returns how many objects it removed.

        Removes no object if the database has no verifications, or if an unusual share of the objects are orphans: an
        operator can remove those with `remove`.

        Raises:
            ConfigurationError: the store belongs to another database.
            UnavailableError: the store or the database does not answer.
        """
        await self.media.clean_spool()
        found = await self.find()
        async with self.database.read() as tx:
            is_empty = not await tx.verifications.has_any()
        if found.keys and (is_empty or found.is_unusual):
            log.error("orphans_kept", found=len(found.keys), checked=found.checked)
            return 0
        return await self.remove(found)

    async def find(self) -> FoundOrphans:
        """Finds the orphans. Their age counts by the store's clock, which has dated them."""
        swept_at = await self.media.mark(await self.media_guard.require_owner())
        orphans, checked, batch = list[str](), 0, list[str]()
        async for stored in self.media.list():
            if stored.modified_at < swept_at - ORPHAN_AGE:
                batch.append(stored.key)
                checked += 1
            if len(batch) == _BATCH:
                orphans += await self._unreferenced(batch)
                batch = []
        return FoundOrphans(orphans + await self._unreferenced(batch), checked)

    async def remove(self, found: FoundOrphans) -> int:
        """Removes orphans that `find` returned; returns how many."""
        for key in found.keys:
            await self.media.delete(key)
        log.info("orphans_removed", removed=len(found.keys))
        return len(found.keys)

    async def _unreferenced(self, keys: list[str]) -> list[str]:
        async with self.database.read() as tx:
            referenced = await tx.results.referenced(keys)
        return [key for key in keys if key not in referenced]
