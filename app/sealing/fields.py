"""Encrypted fields: each value under its verification's key, and valid only in its own place."""

from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.sealing.aead import context_of, seal, unseal

T = TypeVar("T")


class FieldCipher:
    """Encrypts and decrypts the fields of one verification.

    A place is a table, a column and a row. The row is its BizToken, because readers ask by it. A value that was moved
    to another place cannot be decrypted there.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, value: object, *place: str) -> bytes:
        """Encrypts a JSON value for (table, column, row)."""
        return seal(self._cipher, msgspec.json.encode(value), context_of(*place))

    def open(self, sealed: bytes | None, shape: type[T], *place: str) -> T:
        """Decrypts the value for (table, column, row).

        Raises:
            TamperedDataError: it was encrypted for another place, was changed, or is missing.
        """
        return msgspec.json.decode(unseal(self._cipher, sealed, context_of(*place)), type=shape)
