"""The contract of the media stores, checked in a folder and in a bucket of a real S3 server."""

import errno
import hashlib
import os
import resource
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from app.domain.media import HEAD_BYTES
from app.errors import UnavailableError
from app.storage.media import (
    PIECE_BYTES,
    MediaMissingError,
    MediaSettings,
    MediaStore,
    SpoolFile,
    open_media_store,
)

MEBIBYTE = 1024 * 1024
NO_KEYS = ["", "ab", "../../../etc/passwd", "ab/../../../../etc/passwd", "AB/" + "0" * 30, "ab/" + "0" * 30 + "\n"]


async def put(store: MediaStore, data: bytes) -> str:
    spool_file = store.new_file()
    spool_file.write(data)
    return (await store.put(spool_file))[0]


async def read(store: MediaStore, key: str, start: int, stop: int) -> bytes:
    return b"".join([piece async for piece in store.open(key, start, stop)])


async def keys(store: MediaStore) -> set[str]:
    return {stored.key async for stored in store.list()}


def spooled(settings: MediaSettings) -> list[Path]:
    is_bucket = settings.media_location.scheme == "s3"
    return [*(settings.media_spool if is_bucket else settings.media_folder / ".spool").glob("*")]


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * MEBIBYTE])
async def test_object_is_read_as_it_was_put(media_store: MediaStore, size: int) -> None:
    data = os.urandom(size)

    key = await put(media_store, data)

    assert await read(media_store, key, 0, size) == data


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 1), (10, 10), (0, PIECE_BYTES + 1), (PIECE_BYTES - 1, 999_999), (999_999, 1_000_000)]
)
async def test_range_is_read_to_the_byte(media_store: MediaStore, start: int, stop: int) -> None:
    data = os.urandom(1_000_000)

    key = await put(media_store, data)

    assert await read(media_store, key, start, stop) == data[start:stop]


async def test_range_beyond_the_end_is_an_error(media_store: MediaStore) -> None:
    key = await put(media_store, b"0123456789")

    with pytest.raises(UnavailableError):
        await read(media_store, key, 5, 11)
    with pytest.raises(UnavailableError):
        await read(media_store, key, 11, 12)


@pytest.mark.parametrize("stop", [0, 1])
async def test_deleted_object_is_missing(media_store: MediaStore, stop: int) -> None:
    key = await put(media_store, b"x")
    await media_store.delete(key)

    with pytest.raises(MediaMissingError):
        await read(media_store, key, 0, stop)


async def test_second_delete_does_nothing(media_store: MediaStore) -> None:
    kept, deleted = await put(media_store, b"kept"), await put(media_store, b"deleted")

    await media_store.delete(deleted)
    await media_store.delete(deleted)

    assert await keys(media_store) == {kept}


@pytest.mark.parametrize("key", NO_KEYS)
async def test_malformed_key_never_becomes_part_of_a_path(media_store: MediaStore, key: str) -> None:
    with pytest.raises(MediaMissingError):
        await read(media_store, key, 0, 1)
    with pytest.raises(MediaMissingError):
        await media_store.delete(key)


async def test_same_bytes_get_a_new_key_each_time(media_store: MediaStore) -> None:
    assert len({await put(media_store, b"the same") for _ in range(3)}) == 3


async def test_list_has_every_object_and_its_time(media_store: MediaStore) -> None:
    # S3 counts whole seconds.
    before = datetime.now(UTC) - timedelta(seconds=2)
    stored_keys = {await put(media_store, b"x") for _ in range(3)}

    found = [stored async for stored in media_store.list()]

    after = datetime.now(UTC) + timedelta(seconds=2)
    assert {stored.key for stored in found} == stored_keys
    assert all(before < stored.modified_at < after for stored in found)


async def test_empty_store_lists_nothing(media_store: MediaStore) -> None:
    assert await keys(media_store) == set()


async def test_spool_file_knows_size_and_digest(media_store: MediaStore) -> None:
    data = os.urandom(HEAD_BYTES + 10)
    with media_store.new_file() as spool_file:
        written = [spool_file.write(data[:7]), spool_file.write(data[7:])]

        assert written == [7, HEAD_BYTES + 3]
        assert spool_file.size_bytes == len(data)
        assert spool_file.sha256 == hashlib.sha256(data).hexdigest()


async def test_spool_file_is_private_until_it_is_put(media_store: MediaStore, media_settings: MediaSettings) -> None:
    with media_store.new_file() as spool_file:
        spool_file.write(b"half of it")

        [file] = spooled(media_settings)
        assert file.stat().st_mode & 0o777 == 0o600
        assert await keys(media_store) == set()


async def test_discarded_spool_file_leaves_nothing(media_store: MediaStore, media_settings: MediaSettings) -> None:
    spool_file = media_store.new_file()
    spool_file.write(b"x" * PIECE_BYTES)

    spool_file.discard()
    spool_file.discard()

    assert spooled(media_settings) == []
    assert await keys(media_store) == set()


async def test_put_spool_file_leaves_the_spool_and_survives_its_discard(
    media_store: MediaStore, media_settings: MediaSettings
) -> None:
    with media_store.new_file() as spool_file:
        spool_file.write(b"kept")
        (key,) = await media_store.put(spool_file)

    assert spooled(media_settings) == []
    assert await read(media_store, key, 0, 4) == b"kept"


async def test_spool_files_of_dead_processes_are_cleaned(
    media_store: MediaStore, media_settings: MediaSettings
) -> None:
    with media_store.new_file() as dead, media_store.new_file() as living:
        long_ago = (datetime.now(UTC) - timedelta(minutes=61)).timestamp()
        os.utime(dead.path, (long_ago, long_ago))

        assert await media_store.clean_spool() == 1
        assert spooled(media_settings) == [living.path]


async def test_check_passes_and_leaves_nothing(media_store: MediaStore, media_settings: MediaSettings) -> None:
    await media_store.check()

    assert await keys(media_store) == set()
    assert spooled(media_settings) == []


async def test_files_and_folders_are_private(folder_settings: MediaSettings) -> None:
    key = await put(open_media_store(folder_settings), b"x")

    path = folder_settings.media_folder / key
    modes = [made.stat().st_mode & 0o777 for made in (path, path.parent, path.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


async def test_foreign_files_in_the_folder_are_not_listed(folder_settings: MediaSettings) -> None:
    store = open_media_store(folder_settings)
    key = await put(store, b"x")
    (folder_settings.media_folder / key).with_name("lost+found").touch()
    (folder_settings.media_folder / "README").touch()

    assert await keys(store) == {key}


async def test_objects_under_another_prefix_are_not_listed(bucket_settings: MediaSettings) -> None:
    store = open_media_store(bucket_settings)
    neighbour = open_media_store(bucket_settings.model_copy(update={"media_url": f"{bucket_settings.media_url}-2"}))

    key, _ = await put(store, b"ours"), await put(neighbour, b"theirs")

    assert await keys(store) == {key}


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Limits files to 100 kB, as if the disk were full. Few other ways make a write fail for root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_disk")
async def test_full_disk_is_unavailable_and_leaves_nothing(
    media_store: MediaStore, media_settings: MediaSettings
) -> None:
    with media_store.new_file() as spool_file, pytest.raises(UnavailableError, match=os.strerror(errno.EFBIG)):
        spool_file.write(b"x" * 200_000)

    assert spooled(media_settings) == []


async def test_folder_that_cannot_be_created_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = open_media_store(MediaSettings(media_url=(tmp_path / "file" / "media").as_uri()))

    with pytest.raises(UnavailableError, match="The media folder cannot be created"):
        await store.check()


async def test_bucket_that_does_not_answer_is_unavailable(bucket_settings: MediaSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        endpoint = f"http://127.0.0.1:{closed_soon.getsockname()[1]}"
    store = open_media_store(
        MediaSettings.model_validate(bucket_settings.model_dump() | {"aws_endpoint_url": endpoint})
    )

    with pytest.raises(UnavailableError) as caught:
        await store.check()

    assert caught.value.detail == "The bucket media cannot be written: it does not answer."
    assert spooled(bucket_settings) == []


async def test_wrong_credentials_are_reported_but_not_quoted(bucket_settings: MediaSettings) -> None:
    wrong = SecretStr("the-wrong-secret-of-a-stranger")
    store = open_media_store(bucket_settings.model_copy(update={"aws_secret_access_key": wrong}))

    with pytest.raises(UnavailableError) as caught:
        await store.check()

    assert caught.value.detail == (
        "The bucket media cannot be written: it answers SignatureDoesNotMatch; "
        "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they permit."
    )
    assert caught.value.__cause__ is None


async def test_unknown_bucket_is_reported(bucket_settings: MediaSettings) -> None:
    store = open_media_store(bucket_settings.model_copy(update={"media_url": "s3://no-such-bucket/media"}))

    with pytest.raises(UnavailableError, match="The bucket no-such-bucket cannot be written: it answers NoSuchBucket"):
        await store.check()


@pytest.mark.parametrize(
    "wrong",
    [
        {"media_url": "media"},
        {"media_url": "file://elsewhere/media"},
        {"media_url": "file:///"},
        {"media_url": "s3:///prefix"},
        {"media_url": "s3://key:top-secret@bucket/prefix"},
        {"media_url": "https://bucket.example/?signature=top-secret"},
        {"aws_endpoint_url": "not an address, top-secret"},
        {"aws_secret_access_key": "top-secret"},
    ],
)
def test_invalid_media_setting_is_not_quoted(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as caught:
        MediaSettings.model_validate(wrong)

    assert "top-secret" not in str(caught.value)


def test_media_are_in_the_data_folder_by_default(tmp_path: Path) -> None:
    assert MediaSettings(data_dir=tmp_path / "a folder").media_folder == tmp_path / "a folder" / "media"


def test_spool_file_can_be_discarded_after_its_folder_vanished(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    spool_file = SpoolFile(tmp_path / "spool" / "file")
    (tmp_path / "spool").rename(tmp_path / "away")
    (tmp_path / "spool").write_bytes(b"a file instead of the folder")

    spool_file.discard()

    with pytest.raises(ValueError, match="closed"):
        spool_file.write(b"x" * 1_000_000)
