"""The file of the key ring: created once, read again when it changes, with versions."""

from pathlib import Path

import pytest
import structlog

from app.errors import ConfigurationError
from app.sealing.aead import TamperedDataError, fresh_key
from app.sealing.keyring import KeyRing, Ring, is_open_to_others, version_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keyring.json"


def test_new_ring_is_private_and_never_overwritten(path: Path) -> None:
    first = KeyRing.create(path)
    content = path.read_bytes()

    KeyRing.create(path)

    assert (path.stat().st_mode & 0o777, path.read_bytes()) == (0o600, content)
    assert [first.newest(ring) for ring in Ring] == [1, 1, 1, 1]
    assert not is_open_to_others(path)


def test_older_version_unwraps_until_it_is_destroyed(path: Path) -> None:
    ring, elsewhere, key = KeyRing.create(path), KeyRing(path), fresh_key()
    old = ring.wrap(Ring.IDENTITY, key, "a")

    assert ring.add(Ring.IDENTITY) == 2
    new = elsewhere.wrap(Ring.IDENTITY, key, "a")
    assert [version_of(wrapped) for wrapped in (old, new)] == [1, 2]
    assert elsewhere.unwrap(Ring.IDENTITY, old, "a") == ring.unwrap(Ring.IDENTITY, new, "a") == key

    ring.destroy(Ring.IDENTITY, 1)

    assert elsewhere.newest(Ring.IDENTITY) == 2
    for stranger in (ring, elsewhere):
        with structlog.testing.capture_logs(), pytest.raises(TamperedDataError):
            stranger.unwrap(Ring.IDENTITY, old, "a")


@pytest.mark.parametrize("names", [("b",), ("a", "b"), ("",)])
def test_wrapped_key_is_bound_to_its_names_and_ring(path: Path, names: tuple[str, ...]) -> None:
    ring = KeyRing.create(path)
    wrapped = ring.wrap(Ring.IDENTITY, fresh_key(), "a")

    with structlog.testing.capture_logs():
        for other, called in ((Ring.IDENTITY, names), (Ring.BIOMETRIC, ("a",))):
            with pytest.raises(TamperedDataError):
                ring.unwrap(other, wrapped, *called)


def test_digest_is_found_by_all_versions_of_its_client(path: Path) -> None:
    ring = KeyRing.create(path)
    old = ring.mac("id_card", "bank", "000000199001011234")

    ring.add(Ring.INDEX)

    assert old in ring.macs("id_card", "bank", "000000199001011234")
    assert ring.mac("id_card", "bank", "000000199001011234") != old
    assert old not in ring.macs("id_card", "shop", "000000199001011234")


def test_newest_version_is_never_destroyed(path: Path) -> None:
    ring = KeyRing.create(path)

    for version in (1, 7):
        with pytest.raises(ConfigurationError, match="no older version"):
            ring.destroy(Ring.INDEX, version)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"identity": [], "biometric": [], "index": []}', "s3cret"])
def test_invalid_ring_is_rejected_and_not_quoted(path: Path, content: str) -> None:
    path.write_text(content)

    with pytest.raises(ConfigurationError) as raised:
        KeyRing(path)
    assert "KEYRING_FILE" in raised.value.detail
    assert "s3cret" not in raised.value.detail


def test_ring_keeps_its_keys_if_the_file_becomes_invalid(path: Path) -> None:
    ring = KeyRing.create(path)
    path.write_text("invalid")

    with structlog.testing.capture_logs() as logs:
        assert ring.newest(Ring.IDENTITY) == 1
    assert {entry["event"] for entry in logs} == {"keyring_unreadable"}
    assert "key" not in repr(ring.versions(Ring.IDENTITY)[0]).lower().replace("keyversion", "")
