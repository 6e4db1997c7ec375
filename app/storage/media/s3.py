"""The media store in a bucket of S3, Tencent's COS or any S3-compatible store. The only module that uses `obstore`."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from app.errors import ConfigurationError, UnavailableError
from app.storage.media.base import (
    OWNER_KEY,
    PIECE_BYTES,
    MediaMissingError,
    StoredObject,
    all_done,
    cut_short,
    fresh_keys,
    is_key,
    missing,
    probe,
    require_key,
)
from app.storage.media.settings import MediaSettings
from app.storage.media.spool import Spool, SpoolFile, discarded

if TYPE_CHECKING:
    # This name exists for type checkers only.
    from obstore.store import S3Config

_CONNECT_TIMEOUT = timedelta(seconds=5)
# Between two reads, and for a whole upload: 16 MB at 5 Mbit/s.
_READ_TIMEOUT = timedelta(seconds=30)
# For a whole download by a client on a slow line.
_TIMEOUT = timedelta(minutes=10)
_MAX_RETRIES = 2
# A client waits no longer than this for its 503.
_RETRY_TIMEOUT = timedelta(seconds=5)

# The only part of an S3 error that never repeats what was sent.
_CODE = re.compile(r"<Code>(\w+)</Code>")


class BucketStore:
    """Stores each object in the bucket under the prefix. Other objects of the bucket are neither listed nor touched.

    Raises:
        ConfigurationError: the settings do not describe a usable bucket.
    """

    def __init__(self, settings: MediaSettings) -> None:
        self._bucket = settings.media_location.netloc
        self._spool = Spool(settings.media_spool)
        self._store = _s3_store(settings)

    def new_file(self) -> SpoolFile:
        """See `MediaStore`."""
        return self._spool.new_file()

    async def put(self, *spool_files: SpoolFile) -> Sequence[str]:
        """See `MediaStore`. One request each, from the page cache: a crash leaves no parts in the bucket."""
        keys = fresh_keys(len(spool_files))
        with discarded(spool_files), self._translated("cannot be written"):
            await all_done(
                obstore.put_async(self._store, key, spool_file.mapped(), use_multipart=False)
                for key, spool_file in zip(keys, spool_files, strict=True)
            )
        return keys

    async def open(self, key: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """See `MediaStore`."""
        with self._translated("cannot be read", key=require_key(key)):
            # S3 has no empty range.
            if start == stop:
                await obstore.head_async(self._store, key)
                return
            result = await obstore.get_async(self._store, key, options={"range": (start, stop)})
            async for piece in result.stream(min_chunk_size=PIECE_BYTES):
                start += len(piece)
                yield piece
        if start != stop:
            raise cut_short()

    async def delete(self, key: str) -> None:
        """See `MediaStore`."""
        with self._translated("cannot delete an object"):
            await obstore.delete_async(self._store, require_key(key))

    async def list(self) -> AsyncIterator[StoredObject]:
        """See `MediaStore`."""
        with self._translated("cannot be listed"):
            async for page in obstore.list(self._store):
                for found in page:
                    if is_key(found["path"]):
                        yield StoredObject(found["path"], found["last_modified"])

    async def owner(self) -> str | None:
        """See `MediaStore`."""
        try:
            with self._translated("cannot be read", key=OWNER_KEY):
                result = await obstore.get_async(self._store, OWNER_KEY)
                return bytes(await result.bytes_async()).decode(errors="replace").strip() or None
        except MediaMissingError:
            return None

    async def claim(self, owner: str) -> str | None:
        """See `MediaStore`. A store that ignores the condition lets the last of several succeed."""
        with self._translated("cannot be written"), suppress(AlreadyExistsError):
            await obstore.put_async(self._store, OWNER_KEY, owner.encode(), use_multipart=False, mode="create")
        return await self.owner()

    async def mark(self, owner: str) -> datetime:
        """See `MediaStore`."""
        with self._translated("cannot be written"):
            await obstore.put_async(self._store, OWNER_KEY, owner.encode(), use_multipart=False)
            return (await obstore.head_async(self._store, OWNER_KEY))["last_modified"]

    async def check(self) -> None:
        """See `MediaStore`."""
        await probe(self)

    @property
    def local_folder(self) -> Path:
        """See `MediaStore`."""
        return self._spool.folder

    async def clean_spool(self) -> int:
        """See `MediaStore`."""
        return await asyncio.to_thread(self._spool.clean)

    async def aclose(self) -> None:
        """See `MediaStore`; idle connections need no closing."""

    @contextmanager
    def _translated(self, problem: str, *, key: str | None = None) -> Iterator[None]:
        """Raises our errors without their cause: S3 repeats signed headers, including a session token."""
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            code = _CODE.search(str(error))
            if key and isinstance(error, FileNotFoundError) and (code is None or code[1] == "NoSuchKey"):
                raise missing() from None
            raise UnavailableError(f"The bucket {self._bucket} {problem}: {_reason(error, code)}.") from None


def _reason(error: Exception, code: re.Match[str] | None) -> str:
    reason = f"it answers {code[1]}" if code else "it does not answer"
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return f"{reason}; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they permit"
    return reason


def _s3_store(settings: MediaSettings) -> S3Store:
    location = settings.media_location
    endpoint = settings.aws_endpoint_url
    try:
        return S3Store(
            location.netloc,
            prefix=location.path.strip("/") or None,
            config=_s3_config(settings),
            client_options={
                "allow_http": endpoint is not None and endpoint.scheme == "http",
                "connect_timeout": _CONNECT_TIMEOUT,
                "read_timeout": _READ_TIMEOUT,
                "timeout": _TIMEOUT,
            },
            retry_config={"max_retries": _MAX_RETRIES, "retry_timeout": _RETRY_TIMEOUT},
        )
    except BaseError:
        raise ConfigurationError("MEDIA_URL and the AWS settings do not describe a usable bucket.") from None


def _s3_config(settings: MediaSettings) -> "S3Config":
    # One DELETE per object: it is retried, and not every S3-compatible store supports the bulk request.
    config: S3Config = {"disable_bulk_delete": True}
    if settings.aws_access_key_id and settings.aws_secret_access_key:
        config["access_key_id"] = settings.aws_access_key_id
        config["secret_access_key"] = settings.aws_secret_access_key.get_secret_value()
    if settings.aws_session_token:
        config["session_token"] = settings.aws_session_token.get_secret_value()
    if settings.aws_region:
        config["region"] = settings.aws_region
    if endpoint := settings.aws_endpoint_url:
        config["endpoint"] = str(endpoint).rstrip("/")
        bucket = settings.media_location.netloc.lower()
        config["virtual_hosted_style_request"] = (endpoint.host or "").startswith(f"{bucket}.")
    return config
