"""The owner of a media store, its outages, and the reserve of free space."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.config import Settings
from app.errors import ConfigurationError
from app.factory import Services, open_retrieval, open_services
from app.sealing.keyring import KeyRing
from app.services.media_guard import DiskSpace, MediaGuard, space_of
from tests.support.api import call_back, retrieve_new
from tests.support.command import run
from tests.support.servers import S3
from tests.support.service import Running, environment_of, everything, running, settings_for, with_services
from tests.support.simulator import LiveSimulator
from tests.support.worker import retrieve_all

FOREIGN = "MEDIA_URL is a store of another database"


@pytest.fixture(params=["folder", "bucket"])
def media_settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, object]:
    """Returns the settings of a media store that several databases can reach."""
    if request.param == "folder":
        return {"media_url": (tmp_path / "shared").as_uri()}
    server: S3 = request.getfixturevalue("s3_server")
    return dict(server.settings(secrets.token_hex(4)))


def installation(folder: Path, faceid: LiveSimulator, **settings: object) -> Settings:
    """Returns the settings of an installation with a database of its own."""
    folder.mkdir()
    KeyRing.create(folder / "keyring.json")
    return settings_for(folder, faceid.url, **settings)


@asynccontextmanager
async def production(settings: Settings) -> AsyncIterator[Running]:
    """Runs an installation that has stored the media of one verification."""
    async with running(settings) as service:
        async with service.client(await service.key(*everything())) as api:
            await retrieve_new(api)
        yield service


async def keys(services: Services) -> set[str]:
    return {stored.key async for stored in services.media_store.list()}


async def test_database_that_does_not_own_the_store_is_rejected_and_removes_nothing(
    tmp_path: Path, faceid: LiveSimulator, media_settings: dict[str, object]
) -> None:
    async with production(installation(tmp_path / "production", faceid, **media_settings)) as service:
        stored = await keys(service.services)

        async with open_services(installation(tmp_path / "staging", faceid, **media_settings)) as staging:
            guard = staging.media_guard
            for work in (guard.require_owner, guard.confirm_owner, staging.orphans.sweep):
                with pytest.raises(ConfigurationError, match=FOREIGN):
                    await work()
            assert not await guard.is_ready()

        assert len(stored) == 4
        assert await keys(service.services) == stored


async def test_empty_store_is_claimed_by_one_of_two_databases(
    tmp_path: Path, faceid: LiveSimulator, media_settings: dict[str, object]
) -> None:
    first, second = (installation(tmp_path / name, faceid, **media_settings) for name in ("first", "second"))
    async with open_services(first) as one, open_services(second) as other:
        found = await asyncio.gather(
            one.media_guard.require_owner(), other.media_guard.require_owner(), return_exceptions=True
        )
        (owner,) = (each for each in found if isinstance(each, str))
        (error,) = (each for each in found if isinstance(each, ConfigurationError))

        assert await one.media_store.owner() == owner
        assert str(error).startswith(FOREIGN)


@pytest.mark.parametrize("mark", [b"\xff\xfe\x00", "another".encode("utf-16")])
async def test_store_with_an_unreadable_mark_is_foreign(tmp_path: Path, faceid: LiveSimulator, mark: bytes) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "owner").write_bytes(mark)
    async with open_services(installation(tmp_path / "own", faceid, media_url=shared.as_uri())) as services:
        with pytest.raises(ConfigurationError, match=FOREIGN):
            await services.media_guard.confirm_owner()
        assert not await services.media_guard.is_ready()


async def test_bucket_that_hangs_delays_neither_start_nor_stop(tmp_path: Path, faceid: LiveSimulator) -> None:
    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        bucket = S3(f"http://127.0.0.1:{port}", "media", "test-key", secrets.token_hex(16))
        async with open_services(installation(tmp_path / "own", faceid, **bucket.settings("x"))) as services:
            # Far below the 30 s that a single request may take.
            async with asyncio.timeout(20):
                await services.media_guard.confirm_owner()
                assert not await services.media_guard.is_ready()


async def test_store_without_a_mark_belongs_to_the_database_that_names_its_objects(
    tmp_path: Path, faceid: LiveSimulator
) -> None:
    """An earlier version wrote no mark."""
    shared = tmp_path / "shared"
    own = installation(tmp_path / "production", faceid, media_url=shared.as_uri())
    async with production(own):
        pass
    (shared / "owner").unlink()

    async with open_services(installation(tmp_path / "staging", faceid, media_url=shared.as_uri())) as staging:
        with pytest.raises(ConfigurationError, match=FOREIGN):
            await staging.media_guard.require_owner()
    assert not (shared / "owner").exists()
    async with open_services(own) as services:
        assert (shared / "owner").exists() is False
        assert await services.media_guard.require_owner() == (shared / "owner").read_text()


async def test_adopted_store_is_lost_to_its_former_owner(tmp_path: Path, faceid: LiveSimulator) -> None:
    shared = (tmp_path / "shared").as_uri()
    async with production(installation(tmp_path / "old", faceid, media_url=shared)) as old:
        new = environment_of(installation(tmp_path / "new", faceid, media_url=shared))

        refused = run("media", "adopt", folder=tmp_path, stdin="n\n", **new)
        before = await old.services.media_guard.require_owner()
        adopted = run("media", "adopt", "--yes", folder=tmp_path, **new)

        assert (refused.code, adopted.code, adopted.out) == (130, 0, "This database owns the media store.\n")
        assert before
        with pytest.raises(ConfigurationError, match=FOREIGN):
            await old.services.orphans.sweep()
        assert not await old.services.media_guard.is_ready()


@pytest.mark.parametrize("command", [["serve", "--no-worker", "--port", "0"], ["serve", "--port", "0"], ["worker"]])
async def test_command_ends_at_a_foreign_store(tmp_path: Path, faceid: LiveSimulator, command: list[str]) -> None:
    shared = (tmp_path / "shared").as_uri()
    async with production(installation(tmp_path / "production", faceid, media_url=shared)):
        staging = environment_of(installation(tmp_path / "staging", faceid, media_url=shared))

        done = run(*command, folder=tmp_path, **staging)

    assert (done.code, done.err.splitlines()[-1][:58]) == (2, f"faceid-results: {FOREIGN}, "[:58])


async def test_outage_of_the_store_costs_one_call_per_waiting_token_at_most(
    idle_service: Running, settings: Settings, faceid: LiveSimulator, tmp_path: Path
) -> None:
    """Each claim of the same round costs a call, and later rounds cost none until a probe succeeds."""
    folder = settings.media.media_folder
    async with idle_service.client(await idle_service.key(*everything())) as api:
        tokens = [await call_back(api) for _ in range(20)]
    services = idle_service.services
    guard = MediaGuard(database=services.database, store=services.media_store, first_probe_seconds=0.5)
    await guard.require_owner()
    async with open_retrieval(with_services(services, media_guard=guard)) as retrieval:
        # Nothing can be created below a file.
        folder.rename(tmp_path / "away")
        folder.touch()
        for _ in range(5):
            await retrieve_all(retrieval)
        calls = [entry for entry in faceid.simulator.ledger.entries if entry.biz_token in tokens]

        assert len(calls) == 16
        folder.unlink()
        (tmp_path / "away").rename(folder)
        for _ in range(500):
            if await guard.is_ready():
                break
            await asyncio.sleep(0.02)
        assert await retrieve_all(retrieval) >= 4


@pytest.mark.parametrize(
    ("free", "allows_media", "is_full"),
    [(6_000, True, False), (5_999, False, False), (750, False, False), (749, False, True)],
)
def test_media_need_the_reserve_and_callbacks_an_eighth_of_it(free: int, allows_media: bool, is_full: bool) -> None:
    space = DiskSpace(Path("/data"), 1, free, 6_000)

    assert (space.allows_media, space.is_full) == (allows_media, is_full)


def test_reserve_is_a_quarter_of_the_disk_and_at_most_512_mib(tmp_path: Path) -> None:
    space = space_of(tmp_path / "not" / "there")

    assert 0 < space.reserve_bytes <= 512 * 2**20


async def test_doctor_reports_a_foreign_store_and_not_its_own(tmp_path: Path, faceid: LiveSimulator) -> None:
    shared = (tmp_path / "shared").as_uri()
    own = installation(tmp_path / "production", faceid, media_url=shared)
    async with production(own):
        staging = installation(tmp_path / "staging", faceid, media_url=shared)
        async with open_services(staging):
            pass

        found = {}
        for settings in (own, staging):
            checks = json.loads(run("doctor", "--json", folder=tmp_path, **environment_of(settings)).out)["checks"]
            (found[settings.database.data_dir.name],) = [
                (check["status"], check["found"]) for check in checks if check["check"] == "media owner"
            ]

    assert found == {
        "production": ("ok", "The media store belongs to this database."),
        "staging": ("failed", f"{FOREIGN}, which would lose its objects."),
    }
