"""Blobs follow the specification, can be read from any offset, and are never read altered."""

import random
from collections.abc import AsyncIterator
from io import BytesIO

import pytest
import structlog
from cryptography.cobblestone import Cobblestone256Decryptor
from hypothesis import given
from hypothesis import strategies as st

from app.sealing.aead import TamperedDataError, context_of, fresh_key
from app.sealing.blobs import BlobSealer, open_blob, sealed_size

CHUNK = 16 * 1024
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 100_000]


def sealed(data: bytes, *, piece: int = 5000) -> tuple[bytes, bytes]:
    """Returns the key and the blob."""
    sealer = BlobSealer(BytesIO())
    for at in range(0, len(data), piece):
        sealer.write(data[at : at + piece])
    sealer.finish()
    assert (sealer.size_bytes, sealer.head) == (len(data), data[: len(sealer.head)])
    return sealer.key, sealer.target.getvalue()


async def opened(key: bytes, blob: bytes, size: int, start: int, stop: int, *, piece: int = 7000) -> bytes:
    async def read(begin: int, end: int) -> AsyncIterator[bytes]:
        for at in range(begin, end, piece):
            yield blob[at : min(at + piece, end)]

    return b"".join([part async for part in open_blob(key, size, start, stop, read)])


@pytest.mark.parametrize("size", SIZES)
async def test_blob_is_read_by_the_library_and_by_us(size: int) -> None:
    data = random.Random(size).randbytes(size)
    key, blob = sealed(data)
    decryptor = Cobblestone256Decryptor(key, context_of("blob"))

    assert decryptor.update(blob) + decryptor.finalize() == data
    assert len(blob) == sealed_size(size)
    assert await opened(key, blob, size, 0, size) == data


@given(size=st.sampled_from(SIZES), ends=st.tuples(st.floats(0, 1), st.floats(0, 1)), piece=st.integers(1000, 40_000))
async def test_any_range_is_read_to_the_byte(size: int, ends: tuple[float, float], piece: int) -> None:
    data = random.Random(size).randbytes(size)
    key, blob = sealed(data)
    start, stop = sorted(round(end * size) for end in ends)

    assert await opened(key, blob, size, start, stop, piece=piece) == data[start:stop]


async def test_none_of_10000_altered_blobs_is_read_to_its_end() -> None:
    dice, data = random.Random(7), random.Random(1).randbytes(40_000)
    key, blob = sealed(data)
    _, foreign = sealed(data)
    accepted = 0
    with structlog.testing.capture_logs():
        for number in range(10_000):
            tampered, used = bytearray(blob), key
            match number % 5:
                case 0:
                    tampered[dice.randrange(len(tampered))] ^= 1 << dice.randrange(8)
                case 1:
                    del tampered[dice.randrange(len(tampered)) :]
                case 2:
                    tampered[56 : 56 + 2 * (CHUNK + 16)] = tampered[56 + CHUNK + 16 : 56 + 2 * (CHUNK + 16)] * 2
                case 3:
                    tampered = bytearray(foreign)
                case _:
                    used = fresh_key()
            try:
                await opened(used, bytes(tampered), len(data), 0, len(data))
                accepted += 1
            except TamperedDataError:
                pass
    assert accepted == 0


async def test_blob_without_its_last_chunk_is_rejected() -> None:
    key, blob = sealed(bytes(2 * CHUNK))

    with structlog.testing.capture_logs(), pytest.raises(TamperedDataError):
        await opened(key, blob[:-16], 2 * CHUNK, 0, 2 * CHUNK)


async def test_blob_contains_nothing_of_the_plain_bytes() -> None:
    data = b"SYNTHETIC FACE " * 5000
    _, blob = sealed(data)

    assert b"SYNTHETIC" not in blob
