"""One key attacks the service, and another key's honest callbacks are measured beside it.

`waits` opens and drops long waits. `callbacks` sends callbacks of made-up tokens as fast as its rate allows.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import timedelta

import httpx

from app.config import Settings
from app.domain.api_key import Scope
from app.factory import open_services
from app.observability import configure_logging
from benchmarks import harness
from benchmarks.figures import resident_mb
from tests.support.processes import temporary_folder
from tests.support.service import actor, set_up, settings_for

MOST_P99_SECONDS = 2.0
MOST_MB = 300.0
_HONEST_PER_SECOND = 5
_DROPS_AT_ONCE = 100


async def _waits(port: int, key: str, until: float) -> None:
    request = f"GET /v1/verifications/held?wait=60 HTTP/1.1\r\nHost: attack\r\nAuthorization: Bearer {key}\r\n\r\n"
    while time.monotonic() < until:
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(_DROPS_AT_ONCE)]
        for _, writer in opened:
            writer.write(request.encode())
        await asyncio.sleep(0.2)
        for _, writer in opened:
            writer.close()


async def _callbacks(port: int, key: str, until: float) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    number = 0
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as api:
        while time.monotonic() < until:
            number += 1
            await api.post("/v1/callbacks", json={"BizToken": f"unfinished-9-made-up-{number}"})


ATTACKS: dict[str, Callable[[int, str, float], Coroutine[None, None, None]]] = {
    "waits": _waits,
    "callbacks": _callbacks,
}


async def run(kind: str, seconds: float) -> bool:
    """Runs one attack and prints its figures; returns whether the targets are met."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        faceid = await stack.enter_async_context(harness.simulator(folder))
        media = (folder / "media").as_uri()
        settings = settings_for(
            folder, str(faceid.base_url), media_url=media, faceid_info_type="1", faceid_requests_per_second=46
        )
        honest, attacker = await set_up(settings), await _attacker(settings)
        server = await stack.enter_async_context(harness.serving(settings))
        until = time.monotonic() + seconds
        attack = asyncio.create_task(ATTACKS[kind](server.port, attacker, until))
        headers = {"Authorization": f"Bearer {honest}"}
        base_url = f"http://127.0.0.1:{server.port}"
        async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=60) as api:
            (await api.put("/v1/verifications/held", params={"client": "attacker"})).raise_for_status()
            times = await asyncio.gather(*(_honest(api, n) for n in range(int(seconds * _HONEST_PER_SECOND))))
        await attack
        memory = resident_mb(server.child.pid or 0)
    took = [each for each in times if each is not None]
    p99 = statistics.quantiles(took, n=100, method="inclusive")[98]
    refused = len(times) - len(took)
    sys.stdout.write(
        f"{kind}: callback to result p50 {statistics.median(took):.2f} s, p99 {p99:.2f} s (<= {MOST_P99_SECONDS:g}); "
        f"process {memory:.0f} MB (< {MOST_MB:g}); refused requests of others {refused} (0)\n"
    )
    return p99 <= MOST_P99_SECONDS and memory < MOST_MB and not refused


async def _attacker(settings: Settings) -> str:
    scopes = [Scope.CALLBACKS_WRITE, Scope.RESULTS_READ]
    async with open_services(settings) as services:
        _, key = await services.api_keys.create(
            actor(), "attacker", scopes, client="attacker", valid_for=timedelta(days=1)
        )
    return key


async def _honest(api: httpx.AsyncClient, number: int) -> float | None:
    """Returns the seconds from a callback to its result; None if a request was refused."""
    await asyncio.sleep(number / _HONEST_PER_SECOND)
    start = time.monotonic()
    answers = [
        await api.post("/v1/callbacks", json={"BizToken": f"passed-honest-{number}"}),
        await api.get(f"/v1/verifications/passed-honest-{number}", params={"wait": 50, "client": "default"}),
    ]
    is_served = all(answer.is_success for answer in answers) and answers[1].json()["state"] == "retrieved"
    return time.monotonic() - start if is_served else None


def main() -> int:
    """Runs the attacks one after the other. Exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="make bench-flood", description="One key attacks, another one is measured.")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", choices=list(ATTACKS))
    arguments = parser.parse_args()
    configure_logging("ERROR")
    kinds = [arguments.only] if arguments.only else list(ATTACKS)
    results = [asyncio.run(run(kind, arguments.seconds)) for kind in kinds]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
