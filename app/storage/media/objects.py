"""The media store in a bucket: S3, Tencent's COS, and whatever speaks S3. The only module that knows `obstore`."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from app.errors import SetUpError, UnavailableError
from app.storage.media.base import (
    PIECE_BYTES,
    StoredObject,
    all_done,
    cut_short,
    fresh_keys,
    is_key,
    missing,
    probe,
    require_key,
)
from app.storage.media.draft import Draft, Spool, spent
from app.storage.media.settings import MediaSettings

if TYPE_CHECKING:
    from obstore.store import S3Config  # there is no such name at run time

_CONNECT_TIMEOUT = timedelta(seconds=5)
_READ_TIMEOUT = timedelta(seconds=30)  # between two reads, and for a whole upload: 16 MB at 5 Mbit/s
_TIMEOUT = timedelta(minutes=10)  # a whole download, by a reader on a poor line
_MAX_RETRIES = 2
_RETRY_TIMEOUT = timedelta(seconds=5)  # a reader waits for its 503 no longer

_CODE = re.compile(r"<Code>(\w+)</Code>")  # the only part of an S3 error that never repeats what was sent


class ObjectStore:
    """Keeps each object in the bucket, under the prefix. What else is in the bucket, it neither lists nor touches.

    Raises:
        SetUpError: the settings do not name a bucket that can be asked.
    """

    def __init__(self, settings: MediaSettings) -> None:
        self._bucket = settings.media_location.netloc
        self._spool = Spool(settings.media_spool)
        self._store = _s3_store(settings)

    def draft(self) -> Draft:
        """See `MediaStore`."""
        return self._spool.draft()

    async def put(self, *drafts: Draft) -> Sequence[str]:
        """See `MediaStore`. One request each, from the page cache: no parts that a crash would leave in the bucket."""
        keys = fresh_keys(len(drafts))
        with spent(drafts), self._translated("takes no objects"):
            await all_done(
                obstore.put_async(self._store, key, draft.mapped(), use_multipart=False)
                for key, draft in zip(keys, drafts, strict=True)
            )
        return keys

    async def open(self, key: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """See `MediaStore`."""
        with self._translated("cannot be read", key=require_key(key)):
            if start == stop:  # S3 knows no empty range
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
        with self._translated("removes no objects"):
            await obstore.delete_async(self._store, require_key(key))

    async def list(self) -> AsyncIterator[StoredObject]:
        """See `MediaStore`."""
        with self._translated("cannot be listed"):
            async for page in obstore.list(self._store):
                for found in page:
                    if is_key(found["path"]):
                        yield StoredObject(found["path"], found["last_modified"])

    async def check(self) -> None:
        """See `MediaStore`."""
        await probe(self)

    async def clean_spool(self) -> int:
        """See `MediaStore`."""
        return await asyncio.to_thread(self._spool.clean)

    async def aclose(self) -> None:
        """See `MediaStore`; connections close by themselves when they are idle."""

    @contextmanager
    def _translated(self, trouble: str, *, key: str | None = None) -> Iterator[None]:
        """Raises our errors, without their cause: S3 repeats signed headers, a session token among them."""
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            code = _CODE.search(str(error))
            if key and isinstance(error, FileNotFoundError) and (code is None or code[1] == "NoSuchKey"):
                raise missing() from None
            raise UnavailableError(f"The bucket {self._bucket} {trouble}: {_reason(error, code)}.") from None


def _reason(error: Exception, code: re.Match[str] | None) -> str:
    said = f"it answers {code[1]}" if code else "it does not answer"
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return f"{said}; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they permit"
    return said


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
        raise SetUpError("MEDIA_URL and the AWS settings beside it do not name a bucket.") from None


def _s3_config(settings: MediaSettings) -> "S3Config":
    # One DELETE each: it is retried, and not every store that speaks S3 knows the bulk request.
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
