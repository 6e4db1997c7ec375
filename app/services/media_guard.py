"""Guards the media store: whose it is, whether it answers, and whether its disks have room.

A store has one owner, the database whose rows name its objects. Another database would take every object for an orphan.
"""

import asyncio
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from app.errors import ConfigurationError, ServiceError, UnavailableError
from app.storage.database import Database
from app.storage.media import MediaStore

# Objects to look up in the database before a store without an owner counts as ours.
_SAMPLE = 500
_MAX_PROBE_SECONDS = 60.0
# For all requests of one check. A bucket that hangs must not delay the start or the stop of a process.
_ANSWER_SECONDS = 5.0
# A disk keeps a quarter of its size free, but no more than this: for callbacks, erasures and the database itself.
_RESERVE_BYTES = 512 * 2**20
_RESERVE_SHARE = 4
# Of the reserve. With less, the service does not count as ready.
_READY_SHARE = 8

FOREIGN_STORE = "MEDIA_URL is a store of another database, which would lose its objects."
ADOPT = "Use another place. After a restore or a move, run `faceid-results media adopt`."

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """The free bytes of the disk that holds a folder, and how many of them are the reserve.

    `device` is the system's number of the disk.
    """

    folder: Path
    device: int
    free_bytes: int
    reserve_bytes: int

    @property
    def allows_media(self) -> bool:
        """Whether media may be written."""
        return self.free_bytes >= self.reserve_bytes

    @property
    def is_full(self) -> bool:
        """Whether hardly anything can be written."""
        return self.free_bytes < self.reserve_bytes // _READY_SHARE

    def __str__(self) -> str:
        return f"The disk of {self.folder} has {self.free_bytes / 2**20:.1f} MiB free"


def space_of(folder: Path) -> DiskSpace:
    """Returns the space of the disk that holds a folder, which need not exist yet.

    Raises:
        UnavailableError: the disk cannot be read.
    """
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        device, usage = existing.stat().st_dev, shutil.disk_usage(existing)
    except OSError as error:
        raise UnavailableError(f"The folder {folder} cannot be read: {error.strerror}.") from None
    return DiskSpace(folder, device, usage.free, min(usage.total // _RESERVE_SHARE, _RESERVE_BYTES))


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class MediaGuard:
    """Confirms the owner of the store, and decides whether media may be fetched.

    After a failure the store is probed in `first_probe_seconds`, then at growing intervals of at most a minute.
    """

    database: Database
    store: MediaStore
    first_probe_seconds: float = 5.0
    _is_owner: bool = field(init=False, default=False)
    _failed_at: float | None = field(init=False, default=None)
    _probe_at: float = field(init=False, default=0.0)
    _reported_at: float = field(init=False, default=float("-inf"))

    async def require_owner(self) -> str:
        """Returns the id of our database if it owns the store. Takes over a store without an owner.

        Raises:
            ConfigurationError: another database owns the store, or objects of an unknown owner are in it.
            UnavailableError: the store or the database does not answer.
        """
        self._is_owner = False
        database_id, owner = await self._database_id(), await self.store.owner()
        if owner is None and await self._names_objects():
            owner = await self.store.claim(database_id)
        if owner != database_id:
            raise ConfigurationError(f"{FOREIGN_STORE} {ADOPT}")
        self._is_owner = True
        return database_id

    async def confirm_owner(self) -> None:
        """Like `require_owner`, but only logs that the store does not answer: callbacks can be accepted without it."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self.require_owner()
        except (UnavailableError, TimeoutError) as error:
            log.warning("media_store_unchecked", error=type(error).__name__)

    async def adopt(self) -> None:
        """Makes our database the owner of the store, instead of the former one."""
        await self.store.mark(await self._database_id())
        self._is_owner = True

    def report_failure(self) -> None:
        """Notes that media could not be stored. Nothing is fetched until a probe succeeds."""
        if self._failed_at is None:
            self._failed_at = time.monotonic()
            self._probe_at = self._failed_at + self.first_probe_seconds
            log.error("media_store_failed")

    async def is_ready(self) -> bool:
        """Returns whether media may be fetched. Probes the store, at growing intervals, after a failure."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                if not self._is_owner:
                    await self.require_owner()
                for folder in self.folders().values():
                    if not (space := space_of(folder)).allows_media:
                        self._report("disk_almost_full", free_bytes=space.free_bytes)
                        return False
                return await self._answers()
        except (ServiceError, TimeoutError) as error:
            self._report("media_store_not_ready", error=type(error).__name__)
            return False

    def folders(self) -> Mapping[str, Path]:
        """Returns the folders on this machine's disks that the service writes to, by their purpose."""
        database = self.database.folder
        return {"media": self.store.local_folder} | ({"database": database} if database else {})

    async def _answers(self) -> bool:
        now = time.monotonic()
        if self._failed_at is None:
            return True
        if now < self._probe_at:
            return False
        self._probe_at = now + min(max(now - self._failed_at, self.first_probe_seconds), _MAX_PROBE_SECONDS)
        await self.store.check()
        self._failed_at = None
        log.warning("media_store_answers")
        return True

    def _report(self, event: str, **fields: object) -> None:
        """Logs at most once a minute."""
        now = time.monotonic()
        if now - self._reported_at >= _MAX_PROBE_SECONDS:
            self._reported_at = now
            log.error(event, **fields)

    async def _database_id(self) -> str:
        async with self.database.write() as tx:
            return (await tx.installation.get()).database_id

    async def _names_objects(self) -> bool:
        """Returns whether the store is empty, or rows of ours name most of its objects."""
        keys: list[str] = []
        async for stored in self.store.list():
            keys.append(stored.key)
            if len(keys) == _SAMPLE:
                break
        async with self.database.read() as tx:
            return 2 * len(await tx.results.referenced(keys)) >= len(keys)
