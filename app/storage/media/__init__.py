"""The media store: the bytes of pictures and videos, in a folder or in a bucket of any S3.

Bytes first, row second: an object goes under a fresh random key, and only then a row names the key. What no row names
is an orphan, for the sweeper to find by `MediaStore.list`.
"""

from app.storage.media.base import PIECE_BYTES, MediaMissingError, MediaStore, StoredObject
from app.storage.media.draft import Draft
from app.storage.media.folder import FolderStore
from app.storage.media.settings import MediaSettings

__all__ = [
    "PIECE_BYTES",
    "Draft",
    "FolderStore",
    "MediaMissingError",
    "MediaSettings",
    "MediaStore",
    "StoredObject",
    "open_media_store",
]


def open_media_store(settings: MediaSettings) -> MediaStore:
    """The store that `MEDIA_URL` names. Nothing is read or written before its first use."""
    if settings.media_location.scheme != "s3":
        return FolderStore(settings.media_folder)
    from app.storage.media.objects import ObjectStore

    return ObjectStore(settings)
