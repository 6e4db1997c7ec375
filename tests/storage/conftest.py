"""A second connection to the database, and media stores on a real folder and on a real S3 server."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.storage.database import Database
from app.storage.media import MediaSettings, MediaStore, open_media_store
from tests.support.databases import opened
from tests.support.servers import S3


@pytest.fixture
async def another(database_url: str) -> AsyncIterator[Database]:
    """Opens the same database, like another process."""
    async with opened(database_url) as database:
        yield database


@pytest.fixture
def folder_settings(tmp_path: Path) -> MediaSettings:
    """Returns the settings of an empty folder."""
    return MediaSettings(media_url=(tmp_path / "media").as_uri())


@pytest.fixture
def bucket_settings(s3_server: S3, tmp_path: Path) -> MediaSettings:
    """Returns the settings of a new prefix in the bucket of the S3 server."""
    return MediaSettings.model_validate(
        {
            "media_url": f"s3://{s3_server.bucket}/{secrets.token_hex(8)}/media",
            "spool_dir": tmp_path / "spool",
            "aws_access_key_id": s3_server.access_key_id,
            "aws_secret_access_key": s3_server.secret_access_key,
            "aws_endpoint_url": s3_server.endpoint,
        }
    )


@pytest.fixture(params=["folder", "bucket"])
def media_settings(request: pytest.FixtureRequest) -> MediaSettings:
    """Returns the settings of a folder, then of a bucket."""
    settings: MediaSettings = request.getfixturevalue(f"{request.param}_settings")
    return settings


@pytest.fixture
def media_store(media_settings: MediaSettings) -> MediaStore:
    """Opens an empty store in a folder, then in a bucket."""
    return open_media_store(media_settings)
