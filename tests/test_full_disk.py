"""A service on a disk of 24 MB that fills up: it reports that, loses nothing, erases, and recovers."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import structlog

from app.config import Settings
from app.domain.api_key import Scope
from app.sealing.keyring import KeyRing
from tests.support.api import call_back, get, retrieve_new, url
from tests.support.service import everything, running, settings_for
from tests.support.simulator import LiveSimulator


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yields a folder on a disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["/usr/bin/mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("Only root may mount a disk.")
    try:
        yield folder
    finally:
        subprocess.run(["/usr/bin/umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def settings(small_disk: Path, faceid: LiveSimulator) -> Settings:
    KeyRing.create(small_disk / "keyring.json")
    return settings_for(small_disk, faceid.url)


def fill(folder: Path, keep_bytes: int) -> Path:
    """Fills the disk up to this many free bytes; returns the file that takes the space."""
    path = folder / "filler"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    path.write_bytes(b"x" * (free - keep_bytes))
    return path


async def warnings(api: httpx.AsyncClient) -> list[str]:
    found: list[str] = (await api.get("/readyz")).json()["warnings"]
    return found


async def test_disk_that_fills_up_stops_fetching_and_recovers(settings: Settings, small_disk: Path) -> None:
    async with running(settings) as service, service.client(await service.key(*everything(), Scope.ADMIN)) as api:
        stored = await retrieve_new(api)
        filler = fill(small_disk, keep_bytes=5 * 2**20)

        # Below the reserve of 6 MiB nothing is fetched, and callbacks are still accepted.
        with structlog.testing.capture_logs() as logs:
            waiting = [await call_back(api) for _ in range(3)]
            assert (await get(api, waiting[0], wait=3))["state"] == "pending"
            assert (await get(api, waiting[0]))["retrieval"]["attempts"] == 0
        assert [log["event"] for log in logs if log["event"] != "request"] == ["disk_almost_full"]
        assert ["No media are fetched" in sentence for sentence in await warnings(api)] == [True]

        # With next to nothing free the service is not ready. Erasing works, even with a database that cannot grow.
        filler.unlink()
        filler = fill(small_disk, keep_bytes=0)
        full = await api.get("/readyz")
        assert (full.status_code, full.json()["code"]) == (503, "disk_full")
        # The path is for the operator, and anybody may read this answer.
        assert full.json()["detail"] == "The disk of the database is full."
        assert (await api.delete(url(stored))).status_code == 204

        filler.unlink()
        assert [(await get(api, biz_token, wait=20))["state"] for biz_token in waiting] == ["retrieved"] * 3
        assert await warnings(api) == []
