"""Media on their way in: spool files that become objects, or vanish."""

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

STALE_AFTER = timedelta(hours=1)  # no fetch lives this long: whoever spooled it is dead


@contextmanager
def disk_errors(trouble: str) -> Iterator[None]:
    """Raises `UnavailableError`, with `trouble` and the system's words, in place of any `OSError`."""
    try:
        yield
    except OSError as error:
        raise UnavailableError(f"{trouble}: {error.strerror}.") from error


class Draft:
    """One medium on its way in: a temporary file that only we can read, and what is known of its bytes so far.

    It is a context manager that discards what has not been put.
    """

    def __init__(self, path: Path) -> None:
        """Opens the draft as the new file `path`.

        Raises:
            OSError: the file cannot be made.
        """
        self.path = path
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+b")

    def write(self, data: bytes) -> int:
        """Appends `data`; answers how many bytes that were, always all.

        Raises:
            UnavailableError: the disk is full or broken.
        """
        self._digest.update(data)
        self.size_bytes += len(data)
        with disk_errors("The spool folder takes no more"):
            return self._file.write(data)

    @property
    def sha256(self) -> str:
        """The digest of what was written, in hex."""
        return self._digest.hexdigest()

    def sync(self) -> None:
        """Returns when the bytes are on the disk. It blocks."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def mapped(self) -> mmap.mmap | bytes:
        """The bytes, in memory of the page cache only: the kernel drops it when it needs to."""
        self._file.flush()
        return mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) if self.size_bytes else b""

    def discard(self) -> None:
        """Closes and removes the file; does nothing the second time, or once the file has become an object."""
        with suppress(OSError):  # the folder may be gone for now; what is left in it is swept
            self.path.unlink(missing_ok=True)
        with suppress(OSError):  # what the disk did not take is not wanted any more
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


@contextmanager
def spent(drafts: Iterable[Draft]) -> Iterator[None]:
    """Discards them at its end."""
    with ExitStack() as stack:
        for draft in drafts:
            stack.enter_context(draft)
        yield


class Spool:
    """The folder that drafts are written in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def draft(self) -> Draft:
        """A new, empty draft.

        Raises:
            UnavailableError: the folder cannot be made or written.
        """
        path = self._folder / secrets.token_hex(16)
        with disk_errors("The spool folder makes no files"):
            try:
                return Draft(path)
            except FileNotFoundError:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                return Draft(path)

    def clean(self) -> int:
        """Removes what dead processes have left behind; answers how many files that were. It blocks.

        Raises:
            UnavailableError: the folder cannot be read or written.
        """
        stale_before = time.time() - STALE_AFTER.total_seconds()
        with disk_errors("The spool folder gives no files away"):
            stale = [file for file in self._folder.glob("*") if _modified(file) < stale_before]
            for file in stale:
                file.unlink(missing_ok=True)
        return len(stale)


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:  # it has become an object meanwhile
        return float("inf")
