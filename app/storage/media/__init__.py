"""The media store: the bytes of pictures and videos, in a folder or in an S3-compatible bucket.

Bytes first, row second: an object gets a new random key, and only then a row names the key. An object that no row names
is an orphan; the orphan sweep finds it through `MediaStore.list`.
"""

from app.storage.media.base import PIECE_BYTES, MediaMissingError, MediaStore, StoredObject
from app.storage.media.folder import FolderStore
from app.storage.media.settings import MediaSettings
from app.storage.media.spool import SpoolFile

__all__ = [
    "PIECE_BYTES",
    "FolderStore",
    "MediaMissingError",
    "MediaSettings",
    "MediaStore",
    "SpoolFile",
    "StoredObject",
    "open_media_store",
]


def open_media_store(settings: MediaSettings) -> MediaStore:
    """Returns the store that `MEDIA_URL` names. Nothing is read or written before its first use."""
    if settings.media_location.scheme != "s3":
        return FolderStore(settings.media_folder)
    from app.storage.media.s3 import BucketStore

    return BucketStore(settings)
