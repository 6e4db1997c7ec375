"""The shipped gate in front of a real object store, and an API that may only read objects."""

import asyncio
import secrets
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from app.config import Settings
from app.doctor import Doctor, Status
from app.errors import UnavailableError
from app.storage.media import open_media_store
from tests.support.api import get, retrieve_new, url
from tests.support.processes import answers, until
from tests.support.servers import NGINX, S3, free_ports
from tests.support.service import everything, running, settings_for

CONFIGURATION = Path(__file__).parents[1] / "deploy" / "gate.conf"

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@pytest.fixture
async def gate(tmp_path: Path, s3_server: S3) -> AsyncIterator[S3]:
    """Runs the shipped configuration; only paths and addresses differ. Yields the store behind it."""
    port = free_ports(["nginx"])["nginx"]
    text = CONFIGURATION.read_text()
    for old, new in (
        (" /tmp/", f" {tmp_path}/"),
        ("listen 8333", f"listen 127.0.0.1:{port}"),
        ("http://store:8333", s3_server.endpoint),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "gate.conf").write_text(text)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    command = [NGINX or "nginx", "-c", str(tmp_path / "gate.conf"), "-g", "daemon off;"]
    process = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL)
    try:
        await until(lambda: answers("127.0.0.1", port))
        yield replace(s3_server, endpoint=f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_api_reads_through_the_gate_and_leaves_deletes_to_the_worker(
    tmp_path: Path, settings: Settings, gate: S3
) -> None:
    assert gate.reader
    prefix = f"gate-{secrets.token_hex(4)}"
    reader = replace(gate.reader, endpoint=gate.endpoint)
    faceid_url, database_url = settings.faceid.faceid_endpoint, settings.database.database_url
    worker, api_only = (
        settings_for(tmp_path, faceid_url, database_url=database_url, **store.settings(prefix))
        for store in (gate, reader)
    )

    async with running(worker), running(api_only, with_worker=False) as service:
        async with service.client(await service.key(*everything())) as api:
            erased, kept = [await retrieve_new(api) for _ in range(2)]
            item = (await get(api, kept))["media"][0]
            part = await api.get(item["href"], headers={"Range": "bytes=0-9"})
            deleted = await api.delete(url(erased))
            gone = await api.get(url(erased))
            checks = await Doctor(api_only, with_worker=False).run_checks()
        async with aclosing(open_media_store(api_only.media)) as store:
            keys = [stored.key async for stored in store.list()]
            for refused in (store.delete(keys[0]), store.mark("another")):
                with pytest.raises(UnavailableError, match="AccessDenied"):
                    await refused
        async with service.services.database.read() as tx:
            named = await tx.results.referenced(keys)

    assert (part.status_code, len(part.content), deleted.status_code, gone.status_code) == (206, 10, 204, 410)
    # The orphan sweep of the worker removes the others.
    assert (len(keys), len(named)) == (8, 4)
    assert [check for check in checks if check.status is Status.FAILED] == []
