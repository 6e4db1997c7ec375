"""AES-256-GCM with a version byte, a random nonce, and a context that must be the same for decryption."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.errors import ServiceError

KEY_BYTES = 32
NONCE_BYTES = 12

# The first byte of every sealed value, so another cipher can replace this one later.
_AES_256_GCM = b"\x01"


class TamperedDataError(ServiceError):
    """A stored value is not the one that was sealed, or was sealed with another key ring. Nothing of it is returned."""

    code = "altered"

    def __init__(self) -> None:
        super().__init__("The stored data were changed, or sealed with another key ring.")


def fresh_key() -> bytes:
    """Returns 256 random bits."""
    return os.urandom(KEY_BYTES)


def seal(cipher: AESGCM, value: bytes, context: bytes) -> bytes:
    """Encrypts `value`, bound to its context (NIST SP 800-38D, random nonce)."""
    nonce = os.urandom(NONCE_BYTES)
    return _AES_256_GCM + nonce + cipher.encrypt(nonce, value, context)


def unseal(cipher: AESGCM, sealed: bytes | None, context: bytes) -> bytes:
    """Decrypts a value of `seal`.

    Raises:
        TamperedDataError: the key, the context or the value is another one, or the value is missing.
    """
    if sealed is None or sealed[:1] != _AES_256_GCM:
        raise TamperedDataError
    try:
        return cipher.decrypt(sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :], context)
    except (InvalidTag, ValueError):
        raise TamperedDataError from None


def context_of(*names: str) -> bytes:
    """Encodes names unambiguously as one value: each is preceded by its length."""
    encoded = [name.encode() for name in ("faceid-results", *names)]
    return b"".join(len(name).to_bytes(4, "big") + name for name in encoded)
