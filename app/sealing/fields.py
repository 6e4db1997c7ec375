"""Sealed fields: each value under its verification's key, and of use only in its own place."""

from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.sealing.aead import context_of, seal, unseal

T = TypeVar("T")


class Fields:
    """Seals and opens the fields of one verification.

    A place is a table, a column and a row: the row by its natural name, the BizToken, because that is what readers ask
    by. A value that somebody moves to another place does not open there.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, value: object, *place: str) -> bytes:
        """A JSON value, sealed for (table, column, row)."""
        return seal(self._cipher, msgspec.json.encode(value), context_of(*place))

    def open(self, sealed: bytes, shape: type[T], *place: str) -> T:
        """The value that was sealed for (table, column, row).

        Raises:
            AlteredError: it was not.
        """
        return msgspec.json.decode(unseal(self._cipher, sealed, context_of(*place)), type=shape)
