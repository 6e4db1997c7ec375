"""The composition root opens what the settings name, rejects what cannot work, and closes everything."""

import asyncio
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pydantic import SecretStr

from app.config import Settings
from app.errors import ConfigurationError, UnavailableError
from app.factory import open_retrieval, open_services
from app.sealing.keyring import KeyRing, is_open_to_others
from app.storage import schema
from app.storage.database import Database
from tests.support.databases import fresh_database
from tests.support.service import settings_for

NOWHERE = "http://127.0.0.1:1"


async def test_embedded_database_is_migrated(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    async with open_services(settings_for(folder, NOWHERE)) as services:
        assert await schema.is_current(services.database)
        await services.health.check()

    assert folder.stat().st_mode & 0o777 == 0o700


async def test_concurrent_starts_on_an_empty_folder_succeed(tmp_path: Path) -> None:
    async def start() -> None:
        async with open_services(settings_for(tmp_path, NOWHERE)) as services:
            await services.health.check()

    await asyncio.gather(*(start() for _ in range(4)))


async def test_shared_database_with_another_schema_is_rejected_unchanged(tmp_path: Path, postgres_server: str) -> None:
    async with fresh_database(postgres_server) as url:
        settings = settings_for(tmp_path, NOWHERE, database_url=SecretStr(url))
        with pytest.raises(ConfigurationError, match="faceid-results migrate"):
            async with open_services(settings):
                pass

        database = Database(settings.database)
        assert not await schema.is_current(database)
        await database.aclose()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
async def test_key_ring_that_others_may_read_is_rejected(tmp_path: Path, mode: int) -> None:
    settings = settings_for(tmp_path, NOWHERE)
    async with open_services(settings):
        pass
    path = settings.keyring.keyring_path
    path.chmod(mode)

    with pytest.raises(ConfigurationError) as raised:
        async with open_services(settings):
            pass

    assert str(raised.value) == f"Other users may read KEYRING_FILE. Run `chmod 600 {path}`."
    path.chmod(0o600)
    async with open_services(settings):
        pass


@pytest.mark.skipif(not os.access("/run", os.W_OK), reason="only root may write to /run")
def test_mounted_key_ring_may_be_readable_by_all_users() -> None:
    with TemporaryDirectory(dir="/run") as folder:
        path = Path(folder) / "keyring.json"
        KeyRing.create(path)
        path.chmod(0o444)

        assert not is_open_to_others(path)


async def test_health_check_fails_if_the_schema_has_changed(tmp_path: Path) -> None:
    async with open_services(settings_for(tmp_path, NOWHERE)) as services:
        async with services.database.write() as tx:
            await tx.connection.exec_driver_sql("DELETE FROM alembic_version")

        with pytest.raises(UnavailableError, match="schema"):
            await services.health.check()


async def test_closed_services_leave_no_tasks(settings: Settings) -> None:
    before = asyncio.all_tasks()

    async with open_services(settings) as services, open_retrieval(services):
        pass

    assert asyncio.all_tasks() == before


async def test_data_folder_that_cannot_be_created_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match=r"DATA_DIR cannot be created: .*: File exists"):
        async with open_services(settings_for(tmp_path / "file", NOWHERE)):
            pass


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"tencentcloud_secret_id": ""}, "TENCENTCLOUD_SECRET_ID is not set"),
        ({"tencentcloud_secret_key": SecretStr("")}, "TENCENTCLOUD_SECRET_KEY is not set"),
        ({"faceid_endpoint": "ftp://x"}, "FACEID_ENDPOINT must be"),
    ],
)
async def test_only_workers_need_credentials(tmp_path: Path, overrides: dict[str, object], sentence: str) -> None:
    async with open_services(settings_for(tmp_path, NOWHERE, **overrides)) as services:
        with pytest.raises(ConfigurationError, match=sentence):
            async with open_retrieval(services):
                pass
