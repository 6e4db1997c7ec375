"""The key ring: the keys that wrap all other keys, in versions, in one file that no backup of the database holds.

    identity    wraps the keys of verifications, and seals what opens API keys
    biometric   wraps the keys of media
    index       makes the blind index and whatever else has to be recognised without being read

The newest version seals; older ones still open, until all is sealed anew and they are destroyed. What they wrapped is
lost with them, wherever copies of it may lie: that is what makes an erasure final.
"""

import fcntl
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import msgspec
import structlog
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import BaseModel

from app.errors import SetUpError
from app.sealing.aead import altered, context_of, fresh_key, seal, unseal

_VERSION_BYTES = 4
_MAC_BYTES = 16  # 128 bits: no two values meet by chance, and no guess hits

log = structlog.get_logger()


class Ring(StrEnum):
    """What a key is for; a key is for one thing only."""

    IDENTITY = "identity"
    BIOMETRIC = "biometric"
    INDEX = "index"


class KeyringSettings(BaseModel):
    """Where the key ring is: by default in `data_dir`, next to the embedded database."""

    data_dir: Path = Path("data")
    keyring_file: Path | None = None

    @property
    def keyring_path(self) -> Path:
        """`keyring_file`, or its default."""
        return self.keyring_file or self.data_dir / "keyring.json"


class KeyVersion(msgspec.Struct, frozen=True):
    """One version of a ring's key."""

    version: int
    created_at: datetime
    key: bytes

    def __repr__(self) -> str:
        return f"KeyVersion({self.version})"


_Versions = Mapping[Ring, Sequence[KeyVersion]]


class KeyRing:
    """The keys of a file, which is read again whenever it has changed: a rotation reaches every process by itself.

    Raises:
        SetUpError: there is no such file, or it is no key ring.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None
        self._rings: _Versions = {}
        self._ciphers: dict[tuple[Ring, int], AESGCM] = {}
        self._read()

    @classmethod
    def create(cls, path: Path) -> "KeyRing":
        """A new ring in a new file that only its owner can read. Whoever comes second takes the first one's.

        Raises:
            SetUpError: the file cannot be written.
        """
        with _written_by_us(path):
            if not path.exists():
                _write(path, {ring: [_new_version(1)] for ring in Ring})
        return cls(path)

    @property
    def is_open_to_others(self) -> bool:
        """Whether the file is ours, and somebody else may read it."""
        found = self.path.stat()
        return found.st_uid == os.getuid() and bool(found.st_mode & (stat.S_IRGRP | stat.S_IROTH))

    def versions(self, ring: Ring) -> Sequence[KeyVersion]:
        """The versions of a ring, the oldest first."""
        self._refresh()
        return self._rings[ring]

    def newest(self, ring: Ring) -> int:
        """The version that seals."""
        return self.versions(ring)[-1].version

    def add(self, ring: Ring) -> int:
        """Makes a newer version, which seals from now on; answers its number."""
        with _written_by_us(self.path):
            versions = [*self.versions(ring), _new_version(self.newest(ring) + 1)]
            _write(self.path, {**self._rings, ring: versions})
        return self.newest(ring)

    def destroy(self, ring: Ring, version: int) -> None:
        """Takes an older version out of the file, for ever.

        Raises:
            SetUpError: it is the newest one, or there is none of this number.
        """
        with _written_by_us(self.path):
            left = [known for known in self.versions(ring) if known.version != version]
            if version == self.newest(ring) or len(left) == len(self._rings[ring]):
                raise SetUpError(f"The {ring} ring has no older version {version}.")
            _write(self.path, {**self._rings, ring: left})
        self._refresh()

    def wrap(self, ring: Ring, key: bytes, *names: str) -> bytes:
        """A key, sealed by the ring's newest version for what these names say."""
        version = self.newest(ring)
        return version.to_bytes(_VERSION_BYTES, "big") + seal(
            self._cipher(ring, version), key, context_of(ring, *names)
        )

    def unwrap(self, ring: Ring, wrapped: bytes, *names: str) -> bytes:
        """The key that was sealed for these names.

        Raises:
            AlteredError: it was not, or the version that wrapped it is destroyed.
        """
        return unseal(self._cipher(ring, version_of(wrapped)), wrapped[_VERSION_BYTES:], context_of(ring, *names))

    def knows(self, ring: Ring, wrapped: bytes) -> bool:
        """Whether the version that wrapped it is still there."""
        return any(known.version == version_of(wrapped) for known in self.versions(ring))

    def mac(self, *names: str) -> bytes:
        """A keyed digest of the names, by the newest version of the index ring: the same names give the same one."""
        return _mac(self.versions(Ring.INDEX)[-1], names)

    def macs(self, *names: str) -> Sequence[bytes]:
        """The digests of the names by all versions: what one of them may have made."""
        return [_mac(version, names) for version in self.versions(Ring.INDEX)]

    def _cipher(self, ring: Ring, version: int) -> AESGCM:
        if (ring, version) not in self._ciphers:
            self._refresh()
        try:
            return self._ciphers[ring, version]
        except KeyError:
            raise altered() from None

    def _refresh(self) -> None:
        """Reads the file if it is another one. A new file that makes no sense is reported, and what was good stays."""
        try:
            self._read()
        except SetUpError:
            log.error("keyring_unreadable")

    def _read(self) -> None:
        try:
            found = self.path.stat()
            stamp = found.st_mtime_ns, found.st_ino, found.st_size
            if stamp == self._stamp:
                return
            rings = msgspec.json.decode(self.path.read_bytes(), type=dict[Ring, list[KeyVersion]])
            ciphers = {(ring, known.version): AESGCM(known.key) for ring in Ring for known in rings[ring]}
        except (OSError, ValueError, KeyError):
            raise SetUpError(
                "KEYRING_FILE names no key ring that can be read. Put it back, or make a first one with "
                "`faceid-results keyring new`."
            ) from None
        if not all(rings[ring] for ring in Ring):
            raise SetUpError("KEYRING_FILE names a key ring without keys.")
        self._stamp, self._rings, self._ciphers = stamp, rings, ciphers


def version_of(wrapped: bytes) -> int:
    """Which version of its ring wrapped a key, or made a digest."""
    return int.from_bytes(wrapped[:_VERSION_BYTES], "big")


def _mac(version: KeyVersion, names: Sequence[str]) -> bytes:
    digest = hmac.digest(version.key, context_of(*names), hashlib.sha256)
    return version.version.to_bytes(_VERSION_BYTES, "big") + digest[:_MAC_BYTES]


def _new_version(number: int) -> KeyVersion:
    return KeyVersion(number, datetime.now(UTC), fresh_key())


@contextmanager
def _written_by_us(path: Path) -> Iterator[None]:
    """Only one process at a time changes the file: a version that another one overwrites would take data with it."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise SetUpError(f"KEYRING_FILE cannot be written: {error.strerror}.") from None


def _write(path: Path, rings: _Versions) -> None:
    new = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o600
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(msgspec.json.format(msgspec.json.encode(rings)))
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
