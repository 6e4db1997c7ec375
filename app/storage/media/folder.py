"""The media store in a folder: durable like a database, which the stores of common libraries are not (no fsync)."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from app.storage.media.base import (
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
from app.storage.media.draft import Draft, Spool, disk_errors, spent


class FolderStore:
    """Keeps each object as a file that only we can read. Drafts are in `.spool`, thus in the same file system."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._spool = Spool(root / ".spool")

    def draft(self) -> Draft:
        """See `MediaStore`."""
        with disk_errors("The media folder cannot be made"):
            _make_folder(self._root)
        return self._spool.draft()

    async def put(self, *drafts: Draft) -> Sequence[str]:
        """See `MediaStore`. The files get their names only when their bytes are on the disk."""
        with spent(drafts), disk_errors("The media folder takes no files"):
            await all_done(asyncio.to_thread(draft.sync) for draft in drafts)  # each waits for the disk by itself
            return await asyncio.to_thread(self._name, drafts)

    async def open(self, key: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """See `MediaStore`. It reads within the event loop: a piece costs less than the way to a thread and back."""
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
        with disk_errors("The media folder removes no files"):
            await asyncio.to_thread(_delete, self._root / require_key(key))

    async def list(self) -> AsyncIterator[StoredObject]:
        """See `MediaStore`."""
        with disk_errors("The media folder cannot be read"):
            for folder in await asyncio.to_thread(_folders, self._root):
                for stored in await asyncio.to_thread(_objects, folder):
                    yield stored

    async def check(self) -> None:
        """See `MediaStore`."""
        await probe(self)

    async def clean_spool(self) -> int:
        """See `MediaStore`."""
        with disk_errors("The media folder removes no files"):
            return await asyncio.to_thread(self._spool.clean)

    async def aclose(self) -> None:
        """See `MediaStore`; there is nothing to let go of."""

    def _name(self, drafts: Sequence[Draft]) -> Sequence[str]:
        keys = fresh_keys(len(drafts))
        folder = (self._root / keys[0]).parent
        folder.mkdir(mode=0o700, exist_ok=True)
        for key, draft in zip(keys, drafts, strict=True):
            draft.path.rename(self._root / key)
        _sync_folder(folder)
        _sync_folder(self._root)  # always: another process may have made the folder an instant ago
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
    except FileNotFoundError:  # deleted meanwhile
        return None
