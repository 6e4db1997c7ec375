"""Removes what dead workers left behind: drafts, and media that were put and never recorded."""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from app.storage.database import Database
from app.storage.media import MediaStore
from app.storage.results import ResultStore

ORPHAN_AGE = timedelta(
    hours=1
)  # far above any lease: whoever put an object this long ago has recorded it, or never will
_BATCH = 500

log = structlog.get_logger()


class SweepService:
    """The orphan sweeper."""

    def __init__(
        self, database: Database, results: ResultStore, media: MediaStore, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._results = results
        self._media = media
        self._clock = clock

    async def sweep(self) -> int:
        """Goes through the spool and the whole media store once; answers how many objects it removed."""
        await self._media.clean_spool()
        removed, batch = 0, []
        async for stored in self._media.list():
            if stored.modified_at < self._clock() - ORPHAN_AGE:
                batch.append(stored.key)
            if len(batch) == _BATCH:
                removed += await self._remove_orphans(batch)
                batch = []
        removed += await self._remove_orphans(batch)
        log.info("swept", removed=removed)
        return removed

    async def _remove_orphans(self, keys: list[str]) -> int:
        async with self._database.read() as tx:
            orphans = set(keys) - await self._results.named(tx, keys)
        for key in orphans:
            await self._media.delete(key)
        return len(orphans)
