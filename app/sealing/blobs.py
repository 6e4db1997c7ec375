"""Encrypted blobs: Cobblestone-256 (https://c2sp.org/chunked-encryption), written as a stream, read at random.

A blob is a header of 56 bytes (salt, commitment to the key) and chunks of 16 KiB, each with its own tag. The last chunk
is shorter, which exposes truncation. `cryptography` encrypts. Its decryptor cannot start in the middle, so decryption
is implemented here, chunk by chunk, after the same specification.
"""

from collections.abc import AsyncIterator, Callable
from typing import Generic, Protocol, TypeVar

from cryptography.cobblestone import Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from app.domain.media import HEAD_BYTES
from app.sealing.aead import KEY_BYTES, NONCE_BYTES, TamperedDataError, context_of, fresh_key

_CONTEXT = context_of("blob")
_SALT_BYTES, _COMMITMENT_BYTES, _TAG_BYTES = 24, 32, 16
_HEADER_BYTES = _SALT_BYTES + _COMMITMENT_BYTES
_CHUNK_BYTES = 16 * 1024
_SEALED_CHUNK_BYTES = _CHUNK_BYTES + _TAG_BYTES
_INFO = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"


class Writable(Protocol):
    """The destination of encrypted bytes."""

    def write(self, data: bytes, /) -> object:
        """Writes all of the next bytes."""
        ...


W = TypeVar("W", bound=Writable)


class BlobSealer(Generic[W]):
    """Encrypts one blob into `target` while it is written, under its own key. Call `finish` at the end.

    `size_bytes` and `head` describe the unencrypted bytes.
    """

    def __init__(self, target: W) -> None:
        self.target = target
        self.key = fresh_key()
        self.size_bytes = 0
        self.head = b""
        self._encryptor = Cobblestone256Encryptor(self.key, _CONTEXT)

    def write(self, data: bytes) -> None:
        """Encrypts the next bytes. Raises what the target raises."""
        self.head += data[: HEAD_BYTES - len(self.head)]
        self.size_bytes += len(data)
        self.target.write(self._encryptor.update(data))

    def finish(self) -> None:
        """Encrypts the end, without which the blob counts as truncated."""
        self.target.write(self._encryptor.finalize())


def sealed_size(size_bytes: int) -> int:
    """Returns the encrypted size of a blob."""
    return _HEADER_BYTES + size_bytes + (size_bytes // _CHUNK_BYTES + 1) * _TAG_BYTES


async def open_blob(
    key: bytes, size_bytes: int, start: int, stop: int, read: Callable[[int, int], AsyncIterator[bytes]]
) -> AsyncIterator[memoryview]:
    """Yields the bytes from `start` up to but not including `stop` of a blob of `size_bytes`, each piece verified.

    `read` returns the encrypted bytes between two offsets, in pieces.

    Raises:
        TamperedDataError: a byte was changed, or the end is missing.
    """
    first, last = start // _CHUNK_BYTES, (size_bytes if stop == size_bytes else stop - 1) // _CHUNK_BYTES
    begin = _HEADER_BYTES + first * _SEALED_CHUNK_BYTES
    end = min(_HEADER_BYTES + (last + 1) * _SEALED_CHUNK_BYTES, sealed_size(size_bytes))
    opener = _Opener(key, b"".join([piece async for piece in read(0, _HEADER_BYTES)]), first)
    skip, left = start - first * _CHUNK_BYTES, stop - start
    async for sealed in read(begin, end):
        piece = opener.feed(sealed, is_end=opener.fed_bytes + len(sealed) == end - begin)
        part = piece[skip : skip + left]
        skip, left = max(skip - len(piece), 0), left - len(part)
        yield part
    if left or opener.fed_bytes != end - begin:
        raise TamperedDataError


class _Opener:
    """Verifies and decrypts consecutive chunks, starting at number `first`."""

    def __init__(self, key: bytes, header: bytes, first: int) -> None:
        info = _INFO + header[:_SALT_BYTES] + _CONTEXT
        derived = HKDFExpand(SHA512(), KEY_BYTES + NONCE_BYTES + _COMMITMENT_BYTES, info).derive(key)
        # The commitment is public, so the comparison need not take constant time.
        if derived[KEY_BYTES + NONCE_BYTES :] != header[_SALT_BYTES:]:
            raise TamperedDataError
        self._cipher = AESGCM(derived[:KEY_BYTES])
        self._nonce = int.from_bytes(derived[KEY_BYTES : KEY_BYTES + NONCE_BYTES], "big")
        self._number = first
        self._rest = b""
        self.fed_bytes = 0

    def feed(self, sealed: bytes, *, is_end: bool) -> memoryview:
        """Decrypts the chunks that are complete now. At the end, the rest is a chunk too."""
        self.fed_bytes += len(sealed)
        data = self._rest + sealed if self._rest else sealed
        end = len(data) if is_end else len(data) - len(data) % _SEALED_CHUNK_BYTES
        self._rest = data[end:]
        count = -(-end // _SEALED_CHUNK_BYTES)
        view, opened = memoryview(data)[:end], memoryview(bytearray(max(end - count * _TAG_BYTES, 0)))
        for place in range(count):
            chunk = view[place * _SEALED_CHUNK_BYTES : (place + 1) * _SEALED_CHUNK_BYTES]
            self._open(chunk, opened[place * _CHUNK_BYTES : (place + 1) * _CHUNK_BYTES])
        return opened

    def _open(self, chunk: memoryview, into: memoryview) -> None:
        nonce = (self._nonce ^ self._number).to_bytes(NONCE_BYTES, "big")
        self._number += 1
        try:
            self._cipher.decrypt_into(nonce, chunk, None, into)
        except (InvalidTag, ValueError):
            raise TamperedDataError from None
