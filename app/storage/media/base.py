"""The contract of media stores, and what the two implementations share."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from app.errors import UnavailableError
from app.storage.media.spool import SpoolFile

PIECE_BYTES = 16 * 16_400
"""The size of the pieces in which media are read: a whole number of encrypted chunks, because a chunk that is split
between two pieces has to be copied."""

OWNER_KEY = "owner"
"""The key of the object that names the owner. It is no key of a media item."""

_KEY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{30}")
_PROBE = b"faceid-results probe"


class MediaMissingError(UnavailableError):
    """A row names an object that does not exist or is shorter than expected."""

    code = "media_missing"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object and when it was stored (aware, UTC)."""

    key: str
    modified_at: datetime


class MediaStore(Protocol):
    """Stores objects under random keys.

    All methods raise `UnavailableError` with the reason if the store does not answer or refuses.
    """

    def new_file(self) -> SpoolFile:
        """Returns a new, empty spool file: write to it, then `put` or discard it."""
        ...

    async def put(self, *spool_files: SpoolFile) -> Sequence[str]:
        """Stores the bytes of spool files and returns their new keys in the same order. All are durable on return.

        The spool files are used up afterwards, also after an error. An error may leave orphans for the sweep.
        """
        ...

    def open(self, key: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yields the bytes from `start` up to but not including `stop`, in pieces of about `PIECE_BYTES`.

        Raises:
            MediaMissingError: the object does not exist or ends before `stop`.
        """
        ...

    async def delete(self, key: str) -> None:
        """Deletes the object, if it exists."""
        ...

    def list(self) -> AsyncIterator[StoredObject]:
        """Yields all objects of this store, in no order, without foreign objects in the same place."""
        ...

    async def owner(self) -> str | None:
        """Returns the id of the database that owns the store, as `mark` wrote it; None if none does."""
        ...

    async def claim(self, owner: str) -> str | None:
        """Writes the owner's id if there is none; returns the owner. Of several at the same time only one succeeds."""
        ...

    async def mark(self, owner: str) -> datetime:
        """Writes the owner's id; returns the store's time, by which it dates its objects."""
        ...

    async def check(self) -> None:
        """Writes, reads and deletes a probe object."""
        ...

    @property
    def local_folder(self) -> Path:
        """The folder on this machine's disk that media are written to, at first or for good."""
        ...

    async def clean_spool(self) -> int:
        """Deletes spool files of dead processes; returns how many."""
        ...

    async def aclose(self) -> None:
        """Closes connections, if there are any."""
        ...


def fresh_keys(count: int) -> Sequence[str]:
    """Returns random keys. They share their first two digits, which spread the objects over 256 folders."""
    folder = secrets.token_hex(1)
    return [f"{folder}/{secrets.token_hex(15)}" for _ in range(count)]


def is_key(text: str) -> bool:
    """Returns whether the text has the syntax of a key. Nothing else ever becomes part of a path."""
    return _KEY.fullmatch(text) is not None


def require_key(text: str) -> str:
    """Returns the text if it is a key.

    Raises:
        MediaMissingError: it is not, so no object has this key.
    """
    if not is_key(text):
        raise MediaMissingError("The object key is malformed.")
    return text


def missing() -> MediaMissingError:
    """Returns the error for an object that does not exist, without its key."""
    return MediaMissingError("The media store has lost the object.")


def cut_short() -> MediaMissingError:
    """Returns the error for an object that ends too soon."""
    return MediaMissingError("The media store has only part of the object.")


async def all_done(works: Iterable[Awaitable[object]]) -> None:
    """Waits until all of them have ended, then raises the first error."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def probe(store: MediaStore) -> None:
    """Writes, reads and deletes an object of `store`.

    Raises:
        UnavailableError: one of the three failed.
    """
    with store.new_file() as spool_file:
        spool_file.write(_PROBE)
        (key,) = await store.put(spool_file)
    try:
        echo = b"".join([piece async for piece in store.open(key, 0, len(_PROBE))])
    finally:
        await store.delete(key)
    if echo != _PROBE:
        raise UnavailableError("The media store returned different bytes than were written.")
