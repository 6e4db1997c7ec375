"""Removes what dead workers left behind: spool files, and objects that were put but never recorded."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from app.storage.database import Database
from app.storage.media import MediaStore

ORPHAN_AGE = timedelta(hours=1)
"""Far above any lease: a worker that put an object this long ago has recorded it or never will."""

_BATCH = 500

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class OrphanService:
    """Sweeps orphans."""

    database: Database
    media: MediaStore
    clock: Callable[[], datetime]

    async def sweep(self) -> int:
        """Checks the spool and the whole media store once; returns how many objects it removed."""
        await self.media.clean_spool()
        removed, batch = 0, list[str]()
        async for stored in self.media.list():
            if stored.modified_at < self.clock() - ORPHAN_AGE:
                batch.append(stored.key)
            if len(batch) == _BATCH:
                removed += await self._remove_orphans(batch)
                batch = []
        removed += await self._remove_orphans(batch)
        log.info("swept", removed=removed)
        return removed

    async def _remove_orphans(self, keys: list[str]) -> int:
        async with self.database.read() as tx:
            orphans = set(keys) - await tx.results.referenced(keys)
        for key in orphans:
            await self.media.delete(key)
        return len(orphans)
