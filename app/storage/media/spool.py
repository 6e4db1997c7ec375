"""The spool: temporary files that media are written to before they become objects."""

import hashlib
import mmap
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Self

from app.errors import UnavailableError

STALE_AFTER = timedelta(hours=1)
"""No fetch takes this long, so the process that wrote an older file is dead."""


@contextmanager
def disk_errors(problem: str) -> Iterator[None]:
    """Turns any `OSError` into an `UnavailableError` with `problem` and the system's reason."""
    try:
        yield
    except OSError as error:
        raise UnavailableError(f"{problem}: {error.strerror}.") from error


class SpoolFile:
    """A temporary file for one media item, readable only by this user, with the size and digest of its bytes so far.

    As a context manager it discards the file unless it was put.
    """

    def __init__(self, path: Path) -> None:
        """Creates the file `path`.

        Raises:
            OSError: the file cannot be created.
        """
        self.path = path
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+b")

    def write(self, data: bytes) -> int:
        """Appends `data` and returns its length.

        Raises:
            UnavailableError: the disk is full or broken.
        """
        self._digest.update(data)
        self.size_bytes += len(data)
        with disk_errors("The spool folder cannot be written"):
            return self._file.write(data)

    @property
    def sha256(self) -> str:
        """The digest of the bytes so far, in hex."""
        return self._digest.hexdigest()

    def sync(self) -> None:
        """Waits until the bytes are on disk. Blocks."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def mapped(self) -> mmap.mmap | bytes:
        """Returns the bytes, mapped from the page cache, so they take no memory of the process."""
        self._file.flush()
        return mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) if self.size_bytes else b""

    def discard(self) -> None:
        """Closes and deletes the file. Does nothing the second time, or after the file became an object."""
        # The folder may be away for now; the sweep deletes the files that are left in it.
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        # Closing flushes, and a full disk fails to flush bytes that are no longer needed.
        with suppress(OSError):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


@contextmanager
def discarded(spool_files: Iterable[SpoolFile]) -> Iterator[None]:
    """Discards the spool files after the block."""
    with ExitStack() as stack:
        for spool_file in spool_files:
            stack.enter_context(spool_file)
        yield


class Spool:
    """The folder of the spool files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new_file(self) -> SpoolFile:
        """Returns a new, empty spool file.

        Raises:
            UnavailableError: the folder cannot be created or written.
        """
        path = self.folder / secrets.token_hex(16)
        with disk_errors("The spool folder cannot be written"):
            try:
                return SpoolFile(path)
            except FileNotFoundError:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                return SpoolFile(path)

    def clean(self) -> int:
        """Deletes spool files of dead processes; returns how many. Blocks.

        Raises:
            UnavailableError: the folder cannot be read or written.
        """
        stale_before = time.time() - STALE_AFTER.total_seconds()
        with disk_errors("The spool folder cannot be cleaned"):
            stale = [file for file in self.folder.glob("*") if _modified(file) < stale_before]
            for file in stale:
                file.unlink(missing_ok=True)
        return len(stale)


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        # It has become an object in the meantime.
        return float("inf")
