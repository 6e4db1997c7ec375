"""Reports this process as a worker while it works."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.storage.database import Database

REPORT_SECONDS = 15.0
SEEN_WITHIN = timedelta(minutes=1)
"""A worker counts for so long after its last report."""

_KEPT = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class WorkerService:
    """Reports one worker. Its id is random."""

    database: Database
    clock: Callable[[], datetime]
    _id: str = field(init=False, default_factory=lambda: secrets.token_hex(8))

    async def report(self) -> None:
        """Reports that the worker runs, and removes those that were killed. A chore."""
        now = self.clock()
        async with self.database.write() as tx:
            await tx.workers.report(self._id, now)
            await tx.workers.remove_unseen(now - _KEPT)

    async def leave(self) -> None:
        """Removes the worker when it stops."""
        async with self.database.write() as tx:
            await tx.workers.remove(self._id)
