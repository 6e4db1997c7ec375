"""What every media store promises."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.errors import UnavailableError
from app.storage.media.draft import Draft

PIECE_BYTES = 16 * 16_400  # whole sealed chunks: what is cut within one has to be copied
"""The size in which media travel: large enough to be cheap, small enough to be many at a time."""

_KEY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{30}")
_PROBE = b"faceid-results probe"


class MediaMissingError(UnavailableError):
    """A row names an object that is not there, or is shorter than the row says."""

    code = "media_missing"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object, and the instant (aware, UTC) at which it was stored."""

    key: str
    modified_at: datetime


class MediaStore(Protocol):
    """Keeps objects under random keys.

    All methods raise `UnavailableError`, with a sentence that says why, when the store does not do its work.
    """

    def draft(self) -> Draft:
        """A new, empty draft: write to it, then `put` or discard it."""
        ...

    async def put(self, *drafts: Draft) -> Sequence[str]:
        """Stores the bytes of drafts; answers their fresh keys, in the same order. All are durable when it returns.

        The drafts are spent after it, also after an error, which may leave some of the objects for the sweeper.
        """
        ...

    def open(self, key: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to, not including, `stop`, in pieces of about `PIECE_BYTES`; never fewer.

        Raises:
            MediaMissingError: there is no such object, or it ends before `stop`.
        """
        ...

    async def delete(self, key: str) -> None:
        """Removes the object; does nothing where there is none."""
        ...

    def list(self) -> AsyncIterator[StoredObject]:
        """All objects of this store, in no order; what others keep beside them is left out."""
        ...

    async def check(self) -> None:
        """Writes, reads and deletes a probe object."""
        ...

    async def clean_spool(self) -> int:
        """Removes drafts that dead processes have left behind; answers how many."""
        ...

    async def aclose(self) -> None:
        """Lets go of connections, if there are any."""
        ...


def fresh_keys(count: int) -> Sequence[str]:
    """Random keys; their first two digits, the same for all, spread the objects over 256 folders."""
    folder = secrets.token_hex(1)
    return [f"{folder}/{secrets.token_hex(15)}" for _ in range(count)]


def is_key(text: str) -> bool:
    """Whether `fresh_keys` could have made it; nothing else ever becomes part of a path."""
    return _KEY.fullmatch(text) is not None


def require_key(text: str) -> str:
    """The text itself, if it is a key.

    Raises:
        MediaMissingError: it is none, so nothing can be stored under it.
    """
    if not is_key(text):
        raise MediaMissingError("This is not the key of an object.")
    return text


def missing() -> MediaMissingError:
    """What to raise when there is no such object. Its key stays with us."""
    return MediaMissingError("The media store has lost the object.")


def cut_short() -> MediaMissingError:
    """What to raise when the object ends too soon."""
    return MediaMissingError("The media store has only a part of the object.")


async def all_done(works: Iterable[Awaitable[object]]) -> None:
    """Returns when all of them are over; raises the first error then, not before."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def probe(store: MediaStore) -> None:
    """Writes, reads and deletes an object of `store`.

    Raises:
        UnavailableError: one of the three did not work.
    """
    with store.draft() as draft:
        draft.write(_PROBE)
        (key,) = await store.put(draft)
    try:
        echo = b"".join([piece async for piece in store.open(key, 0, len(_PROBE))])
    finally:
        await store.delete(key)
    if echo != _PROBE:
        raise UnavailableError("The media store answers with other bytes than it was given.")
