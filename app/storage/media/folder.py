"""The media store in a folder. Durable like a database, unlike the stores of common libraries, which do not fsync."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from app.storage.media.base import (
    OWNER_KEY,
    PIECE_BYTES,
    StoredObject,
    all_done,
    cut_short,
    fresh_keys,
    is_key,
    missing,
    probe,
    require_key,
)
from app.storage.media.spool import Spool, SpoolFile, discarded, disk_errors


class FolderStore:
    """Stores each object as a file that only this user can read.

    The spool is in `.spool`, in the same file system, so a spool file becomes an object by a rename.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._spool = Spool(root / ".spool")

    def new_file(self) -> SpoolFile:
        """See `MediaStore`."""
        with disk_errors("The media folder cannot be created"):
            _make_folder(self._root)
        return self._spool.new_file()

    async def put(self, *spool_files: SpoolFile) -> Sequence[str]:
        """See `MediaStore`. The files are renamed only after their bytes are on disk."""
        with discarded(spool_files), disk_errors("The media folder cannot be written"):
            # In threads side by side, because each waits for the disk.
            await all_done(asyncio.to_thread(spool_file.sync) for spool_file in spool_files)
            return await asyncio.to_thread(self._rename, spool_files)

    async def open(self, key: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """See `MediaStore`. Reads within the event loop: a piece costs less than switching to a thread."""
        with disk_errors("The media folder cannot be read"), _opened(self._root, key) as file:
            file.seek(start)
            while start < stop:
                piece = file.read(min(PIECE_BYTES, stop - start))
                if not piece:
                    raise cut_short()
                start += len(piece)
                yield piece

    async def delete(self, key: str) -> None:
        """See `MediaStore`."""
        with disk_errors("A file in the media folder cannot be deleted"):
            await asyncio.to_thread(_delete, self._root / require_key(key))

    async def list(self) -> AsyncIterator[StoredObject]:
        """See `MediaStore`."""
        with disk_errors("The media folder cannot be read"):
            for folder in await asyncio.to_thread(_folders, self._root):
                for stored in await asyncio.to_thread(_objects, folder):
                    yield stored

    async def owner(self) -> str | None:
        """See `MediaStore`."""
        with disk_errors("The media folder cannot be read"):
            try:
                # Other software may have written anything, and then the owner of the store is unknown.
                return (self._root / OWNER_KEY).read_text(errors="replace").strip() or None
            except FileNotFoundError:
                return None

    async def claim(self, owner: str) -> str | None:
        """See `MediaStore`."""
        path = self._root / OWNER_KEY
        with self._marked(owner) as mark:
            try:
                path.hardlink_to(mark)
            except FileExistsError:
                return await self.owner()
            except OSError:
                # The file system has no hard links. The last of several succeeds.
                mark.rename(path)
            _sync_folder(self._root)
        return await self.owner()

    async def mark(self, owner: str) -> datetime:
        """See `MediaStore`."""
        with self._marked(owner) as mark:
            path = mark.rename(self._root / OWNER_KEY)
            _sync_folder(self._root)
            return datetime.fromtimestamp(path.stat().st_mtime, UTC)

    async def check(self) -> None:
        """See `MediaStore`."""
        await probe(self)

    @property
    def local_folder(self) -> Path:
        """See `MediaStore`."""
        return self._root

    async def clean_spool(self) -> int:
        """See `MediaStore`."""
        with disk_errors("The spool folder cannot be cleaned"):
            return await asyncio.to_thread(self._spool.clean)

    async def aclose(self) -> None:
        """See `MediaStore`; there is nothing to close."""

    @contextmanager
    def _marked(self, owner: str) -> Iterator[Path]:
        """Yields a spool file with the owner's id, which is on disk."""
        with self.new_file() as spool_file, disk_errors("The media folder cannot be written"):
            spool_file.write(owner.encode())
            spool_file.sync()
            yield spool_file.path

    def _rename(self, spool_files: Sequence[SpoolFile]) -> Sequence[str]:
        keys = fresh_keys(len(spool_files))
        folder = (self._root / keys[0]).parent
        folder.mkdir(mode=0o700, exist_ok=True)
        for key, spool_file in zip(keys, spool_files, strict=True):
            spool_file.path.rename(self._root / key)
        _sync_folder(folder)
        # Always, because another process may have created the folder a moment ago.
        _sync_folder(self._root)
        return keys


def _make_folder(path: Path) -> None:
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _delete(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        return
    _sync_folder(path.parent)


def _opened(root: Path, key: str) -> FileIO:
    try:
        return FileIO(root / require_key(key))
    except FileNotFoundError:
        raise missing() from None


def _folders(root: Path) -> Sequence[Path]:
    return [*root.glob("[0-9a-f][0-9a-f]")]


def _objects(folder: Path) -> Sequence[StoredObject]:
    found = ((f"{folder.name}/{file.name}", _modified_at(file)) for file in folder.iterdir())
    return [StoredObject(key, at) for key, at in found if is_key(key) and at is not None]


def _modified_at(file: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except FileNotFoundError:
        # It was deleted in the meantime.
        return None
