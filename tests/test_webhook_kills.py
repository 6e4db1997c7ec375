"""Webhooks while API, worker and receiver are killed: every event arrives, once or more, and in order.

`TEST_EVENTS=10000 TEST_KILLS=60 pytest tests/test_webhook_kills.py` runs it at full size.
"""

import asyncio
import json
import os
import random
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from app.config import Settings
from app.domain.events import EventFilter
from app.services.webhook_endpoints import EndpointFacts
from tests.support.api import token, url
from tests.support.processes import Child, Command, answers, minded
from tests.support.servers import free_ports, script_path
from tests.support.service import UNLIMITED, Running, actor, changed, environment_of, everything, running

EVENTS = int(os.environ.get("TEST_EVENTS", "60"))
KILLS = int(os.environ.get("TEST_KILLS", "4"))
ROOT = Path(__file__).parents[1]
# Of a worker's lease, and of an endpoint's first pause.
PATIENCE_SECONDS = 60 + EVENTS / 20
PAUSE_SECONDS = 1.0
CONCURRENCY = 16


def lines_of(path: Path) -> Sequence[Mapping[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def cause_events(api: httpx.AsyncClient) -> None:
    """Registers, retrieves and erases tokens, which is two events for each."""
    free = asyncio.Semaphore(CONCURRENCY)

    async def send(method: str, path: str, **request: Any) -> httpx.Response:
        while True:
            with suppress(httpx.TransportError):
                answer = await api.request(method, path, **request)
                if answer.status_code != 503:
                    return answer.raise_for_status()
            await asyncio.sleep(0.2)

    async def live_and_die() -> None:
        biz_token = token()
        async with free:
            await send("POST", "/v1/callbacks", json={"BizToken": biz_token})
            while (await send("GET", url(biz_token), params={"wait": 20})).json()["state"] != "retrieved":
                pass
            await send("DELETE", url(biz_token))

    await asyncio.gather(*(live_and_die() for _ in range(EVENTS // 2)))


async def kill_at_random(children: Sequence[Child], dice: random.Random) -> None:
    for _ in range(KILLS):
        await asyncio.sleep(PAUSE_SECONDS * (0.5 + dice.random()))
        child = dice.choice(children)
        await child.until_up()
        child.kill()


async def all_events(service: Running) -> set[str]:
    found, after = set[str](), 0
    while True:
        page = await service.services.events.list(actor(), EventFilter(), after=after, limit=500)
        found |= {event.public_id for event in page.events}
        if page.is_end:
            return found
        after = page.next_after


async def test_every_event_arrives_in_order_although_all_sides_are_killed(settings: Settings, tmp_path: Path) -> None:
    path, program, environment = (
        tmp_path / "received",
        script_path("faceid-results"),
        environment_of(changed(settings, **UNLIMITED)),
    )
    ports = free_ports(["api", "receiver"])
    async with running(settings, with_worker=False) as service:
        facts = EndpointFacts(url=f"http://127.0.0.1:{ports['receiver']}/")
        _, secret = await service.services.webhook_endpoints.create(actor(), facts)
        key = await service.key(*everything())
        module = [sys.executable, "-m", "tests.support.webhook_process", str(ports["receiver"]), secret, str(path)]
        commands = {
            "api": Command(
                [program, "serve", "--no-worker", "--port", str(ports["api"])],
                environment,
                tmp_path,
                partial(answers, "127.0.0.1", ports["api"]),
            ),
            "worker": Command([program, "worker"], environment, tmp_path, "worker_started"),
            "receiver": Command(
                module, {"PYTHONPATH": str(ROOT)}, tmp_path, partial(answers, "127.0.0.1", ports["receiver"])
            ),
        }
        children = [Child(name, command) for name, command in commands.items()]
        client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{ports['api']}",
            headers={"Authorization": f"Bearer {key}"},
            timeout=30,
            trust_env=False,
        )
        async with minded(children), client:
            await asyncio.gather(cause_events(client), kill_at_random(children, random.Random(7)))
            expected: set[str] = set()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(expected) < EVENTS or expected - {line["id"] for line in lines_of(path)}:
                    await asyncio.sleep(0.5)
                    expected = await all_events(service)

    received = lines_of(path)
    ids, revisions = defaultdict(set), defaultdict(list)
    for line in received:
        ids[line["biz_token"], line["revision"]].add(line["id"])
        revisions[line["biz_token"]].append(line["revision"])
    assert {line["id"] for line in received} == expected
    assert len(expected) == EVENTS
    assert {len(each) for each in ids.values()} == {1}
    assert [each for each in revisions.values() if each != sorted(each)] == []
    assert sum(child.starts for child in children) >= len(children) + KILLS
