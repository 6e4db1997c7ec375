"""AES-256-GCM as everything here uses it: a version byte, a random nonce, and a context that must be the same again."""

import os

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.errors import ServiceError
from app.observability import ALTERED

KEY_BYTES = 32
NONCE_BYTES = 12
log = structlog.get_logger()

_AES_256_GCM = b"\x01"  # the first byte of all that is sealed, so that another cipher can take its place one day


class AlteredError(ServiceError):
    """What is stored is not what was sealed, or not with this key ring; nothing of it is given out."""

    code = "altered"

    def __init__(self) -> None:
        super().__init__("What is stored was altered, or sealed with another key ring.")


def altered() -> AlteredError:
    """What to raise, after the alarm."""
    ALTERED.inc()
    log.error("altered")
    return AlteredError()


def fresh_key() -> bytes:
    """A new key: 256 random bits."""
    return os.urandom(KEY_BYTES)


def seal(cipher: AESGCM, value: bytes, context: bytes) -> bytes:
    """`value` so that only the same key opens it, and only in the same context (NIST SP 800-38D, random nonce)."""
    nonce = os.urandom(NONCE_BYTES)
    return _AES_256_GCM + nonce + cipher.encrypt(nonce, value, context)


def unseal(cipher: AESGCM, sealed: bytes, context: bytes) -> bytes:
    """What `seal` was given.

    Raises:
        AlteredError: another key, another context, or another value.
    """
    if sealed[:1] != _AES_256_GCM:
        raise altered()
    try:
        return cipher.decrypt(sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :], context)
    except (InvalidTag, ValueError):
        raise altered() from None


def context_of(*names: str) -> bytes:
    """Names as one value that no other names make: each with its length before it."""
    encoded = [name.encode() for name in ("faceid-results", *names)]
    return b"".join(len(name).to_bytes(4, "big") + name for name in encoded)
