"""The key ring: the versioned keys that wrap all other keys, in one file outside every backup of the database.

    identity    wraps the keys of verifications, and seals the digests of API keys
    biometric   wraps the keys of media
    index       computes the blind index and other values that must be recognised without being readable
    audit       links the rows of the audit trail; key rings of earlier versions lack it until it is rotated

The newest version of a ring wraps; older versions still unwrap until everything is wrapped again and they are
destroyed. Their wrapped keys are then lost in every copy, which makes an erasure final.
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

from app.errors import ConfigurationError
from app.sealing.aead import TamperedDataError, context_of, fresh_key, seal, unseal

VERSION_BYTES = 4
"""The length of the version number that every wrapped key and every digest begins with."""

_MOUNTED = Path("/run")
# 128 bits: no collisions by chance, and no successful guess.
_MAC_BYTES = 16

log = structlog.get_logger()


class Ring(StrEnum):
    """The purpose of a key; each key has one purpose."""

    IDENTITY = "identity"
    BIOMETRIC = "biometric"
    INDEX = "index"
    AUDIT = "audit"


class KeyringSettings(BaseModel):
    """The path of the key ring: by default in `data_dir`, next to the embedded database."""

    data_dir: Path = Path("data")
    keyring_file: Path | None = None

    @property
    def keyring_path(self) -> Path:
        """`keyring_file` or its default, absolute."""
        return (self.keyring_file or self.data_dir / "keyring.json").absolute()


class KeyVersion(msgspec.Struct, frozen=True):
    """One version of a ring's key.

    `has_digests`: each verification whose key it wraps has a digest of its result. Versions from before the digest lack
    this mark. It is outside the database, so removing a digest there is noticed.
    """

    version: int
    created_at: datetime
    key: bytes
    has_digests: bool = False

    def __repr__(self) -> str:
        return f"KeyVersion({self.version})"


_Versions = Mapping[Ring, Sequence[KeyVersion]]


class KeyRing:
    """The keys of a file. The file is read again after each change, so a rotation reaches every running process.

    Raises:
        ConfigurationError: the file does not exist or is not a key ring.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None
        self._rings: _Versions = {}
        self._ciphers: dict[tuple[Ring, int], AESGCM] = {}
        self._read()

    @classmethod
    def create(cls, path: Path) -> "KeyRing":
        """Creates a key ring in a new file that only its owner can read.

        If another process created the file first, its key ring is used.

        Raises:
            ConfigurationError: the file cannot be written.
        """
        with _locked(path):
            if not path.exists():
                _write(path, {ring: [_new_version(1)] for ring in Ring})
        return cls(path)

    def versions(self, ring: Ring) -> Sequence[KeyVersion]:
        """Returns the versions of a ring, oldest first."""
        self._refresh()
        return self._rings[ring]

    @property
    def is_outdated(self) -> bool:
        """Whether an earlier version of the service created it: the audit has no key, or results have no digests."""
        return not self.versions(Ring.AUDIT) or not self.versions(Ring.IDENTITY)[-1].has_digests

    def newest(self, ring: Ring) -> int:
        """Returns the number of the version that wraps; 0 if the ring does not exist yet."""
        versions = self.versions(ring)
        return versions[-1].version if versions else 0

    def add(self, ring: Ring) -> int:
        """Adds a version, which wraps from now on; returns its number."""
        with _locked(self.path):
            versions = [*self.versions(ring), _new_version(self.newest(ring) + 1)]
            _write(self.path, {**self._rings, ring: versions})
        return self.newest(ring)

    def destroy(self, ring: Ring, version: int) -> None:
        """Removes an older version from the file for good.

        Raises:
            ConfigurationError: it is the newest version, or it does not exist.
        """
        with _locked(self.path):
            left = [known for known in self.versions(ring) if known.version != version]
            if version == self.newest(ring) or len(left) == len(self._rings[ring]):
                raise ConfigurationError(f"The {ring} ring has no older version {version}.")
            _write(self.path, {**self._rings, ring: left})
        self._refresh()

    def wrap(self, ring: Ring, key: bytes, *names: str) -> bytes:
        """Wraps a key by the newest version of a ring, bound to the names."""
        version = self.newest(ring)
        return version.to_bytes(VERSION_BYTES, "big") + seal(self._cipher(ring, version), key, context_of(ring, *names))

    def unwrap(self, ring: Ring, wrapped: bytes, *names: str) -> bytes:
        """Unwraps a key that is bound to the names.

        Raises:
            TamperedDataError: it is bound to other names, or its version is destroyed.
        """
        return unseal(self._cipher(ring, version_of(wrapped)), wrapped[VERSION_BYTES:], context_of(ring, *names))

    def knows(self, ring: Ring, wrapped: bytes) -> bool:
        """Returns whether the version that wrapped a key still exists."""
        return any(known.version == version_of(wrapped) for known in self.versions(ring))

    def has_digest(self, wrapped: bytes) -> bool:
        """Returns whether the verification with this wrapped key has a digest of its result."""
        version = version_of(wrapped)
        return not any(known.version == version and not known.has_digests for known in self._rings[Ring.IDENTITY])

    def mac(self, *names: str) -> bytes:
        """Returns a keyed digest of the names by the newest version of the index ring."""
        return _mac(self.versions(Ring.INDEX)[-1], names)

    def macs(self, *names: str) -> Sequence[bytes]:
        """Returns the keyed digests of the names by all versions of the index ring, oldest first."""
        return [_mac(version, names) for version in self.versions(Ring.INDEX)]

    def link(self, data: bytes) -> bytes:
        """Returns the hash of a link by the newest version of the audit ring; without the ring it has no key."""
        versions = self.versions(Ring.AUDIT)
        return _link(versions[-1], data) if versions else hashlib.sha256(data).digest()

    def is_link(self, link: bytes, data: bytes) -> bool:
        """Returns whether a link has the hash of the data, by the version that it names."""
        if not is_keyed(link):
            return link == hashlib.sha256(data).digest()
        known = [version for version in self.versions(Ring.AUDIT) if version.version == version_of(link)]
        return any(hmac.compare_digest(link, _link(version, data)) for version in known)

    def _cipher(self, ring: Ring, version: int) -> AESGCM:
        if (ring, version) not in self._ciphers:
            self._refresh()
        try:
            return self._ciphers[ring, version]
        except KeyError:
            raise TamperedDataError from None

    def _refresh(self) -> None:
        """Reads the file if it has changed. If the new one is invalid, reports that and keeps the old keys."""
        try:
            self._read()
        except ConfigurationError:
            log.error("keyring_unreadable")

    def _read(self) -> None:
        try:
            found = self.path.stat()
            stamp = found.st_mtime_ns, found.st_ino, found.st_size
            if stamp == self._stamp:
                return
            stored = msgspec.json.decode(self.path.read_bytes(), type=dict[Ring, list[KeyVersion]])
            rings = {Ring.AUDIT: [], **stored}
            ciphers = {(ring, known.version): AESGCM(known.key) for ring in Ring for known in rings[ring]}
        except (OSError, ValueError, KeyError):
            raise ConfigurationError(
                "KEYRING_FILE does not exist or is not a key ring. Restore it, or create the first one with "
                "`faceid-results keyring new`."
            ) from None
        if not all(rings[ring] for ring in Ring if ring is not Ring.AUDIT):
            raise ConfigurationError("KEYRING_FILE contains a key ring without keys.")
        self._stamp, self._rings, self._ciphers = stamp, rings, ciphers


def version_of(wrapped: bytes) -> int:
    """Returns the key version of a wrapped key or digest."""
    return int.from_bytes(wrapped[:VERSION_BYTES], "big")


def is_keyed(link: bytes) -> bool:
    """Returns whether a link names the key version that made it. Links of earlier versions of the service do not."""
    return len(link) > hashlib.sha256().digest_size


def _link(version: KeyVersion, data: bytes) -> bytes:
    digest = hmac.digest(version.key, context_of(Ring.AUDIT) + data, hashlib.sha256)
    return version.version.to_bytes(VERSION_BYTES, "big") + digest


def _mac(version: KeyVersion, names: Sequence[str]) -> bytes:
    digest = hmac.digest(version.key, context_of(*names), hashlib.sha256)
    return version.version.to_bytes(VERSION_BYTES, "big") + digest[:_MAC_BYTES]


def _new_version(number: int) -> KeyVersion:
    return KeyVersion(number, datetime.now(UTC), fresh_key(), has_digests=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Locks the file for changes by one process: an overwritten version would make data unreadable."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigurationError(f"KEYRING_FILE cannot be written: {error.strerror}.") from None


def is_open_to_others(path: Path) -> bool:
    """Returns whether other users may read a key ring that belongs to this user.

    Containers mount secrets and volumes below /run, readable by each user that they contain.
    """
    found = path.stat()
    is_shared = found.st_uid == os.getuid() and bool(found.st_mode & (stat.S_IRGRP | stat.S_IROTH))
    return is_shared and not path.is_relative_to(_MOUNTED)


def _write(path: Path, rings: _Versions) -> None:
    new = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o600
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(msgspec.json.format(msgspec.json.encode(rings)))
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
