"""API and worker behind a real PgBouncer in transaction mode, which gives each transaction any of its connections."""

import asyncio
import json
import re
from collections import Counter
from pathlib import Path

import httpx
import pytest

from simulator.options import DEMO_CREDENTIALS
from tests.support.command import run, started
from tests.support.databases import fresh_database
from tests.support.servers import PGBOUNCER, pgbouncer
from tests.support.simulator import LiveSimulator

TOKENS = 40

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed")


@pytest.mark.parametrize("listen_url", ["direct", "none"])
async def test_results_are_retrieved_through_pgbouncer(
    tmp_path: Path, postgres_server: str, faceid: LiveSimulator, listen_url: str
) -> None:
    async with fresh_database(postgres_server) as direct_url:
        # Fewer connections than each of the two processes opens, so transactions change connections all the time.
        with pgbouncer(direct_url, connections=3) as pooled_url:
            settings = {
                "DATABASE_URL": pooled_url,
                "DATABASE_LISTEN_URL": direct_url if listen_url == "direct" else listen_url,
                "FACEID_ENDPOINT": faceid.url,
                "FACEID_REQUESTS_PER_SECOND": "1000",
                "FACEID_RULE_ID": "1",
                "TENCENTCLOUD_SECRET_ID": DEMO_CREDENTIALS.secret_id,
                "TENCENTCLOUD_SECRET_KEY": DEMO_CREDENTIALS.secret_key,
            }
            (tmp_path / "data").mkdir()
            # It needs a session, and the direct URL has one.
            migrated = run("migrate", folder=tmp_path, **{**settings, "DATABASE_LISTEN_URL": direct_url})
            created = run("keyring", "new", folder=tmp_path, **settings)
            assert [(done.code, done.err) for done in (migrated, created)] == [(0, "")] * 2
            scopes = ["--scope", "callbacks:write", "--scope", "results:read"]
            key = json.loads(run("keys", "create", "shop", *scopes, "--json", folder=tmp_path, **settings).out)["key"]
            with (
                started("serve", "--no-worker", "--port", "0", folder=tmp_path, stdin=None, **settings) as api,
                started("worker", folder=tmp_path, stdin=None, **settings) as worker,
            ):
                (url,) = re.findall(r"Serving on (\S+),", api.until("/docs"))
                views = await retrieve(url, key)
                logs = api.read("err") + worker.read("err")

    assert Counter((view["state"], view["outcome"]) for view in views) == {("retrieved", "passed"): TOKENS}
    assert re.findall(r'"level": "(?:warning|error)".*', logs) == []


async def retrieve(url: str, key: str) -> list[dict[str, str]]:
    """Reports tokens and waits for their results, all at the same time."""

    async def one(api: httpx.AsyncClient, biz_token: str) -> dict[str, str]:
        (await api.post("/v1/callbacks", json={"BizToken": biz_token})).raise_for_status()
        answer = await api.get(f"/v1/verifications/{biz_token}", params={"wait": 30})
        view: dict[str, str] = answer.raise_for_status().json()
        return view

    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as api:
        return await asyncio.gather(*(one(api, f"passed-{number}") for number in range(TOKENS)))
