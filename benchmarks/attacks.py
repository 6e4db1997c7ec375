"""One caller attacks the service, and another client's honest callbacks are measured beside it.

    none        no attack, for comparison
    waits       opens and drops 500 long waits per second, with a key that may only read
    callbacks   calls back tokens that it made up, with the smallest scope, as fast as its rate allows
    rules       the same, each token with a RuleId that Tencent does not know, while unknown rules are accepted
    redirects   names one unfinished token in browser redirects, without a key
    replays     repeats one captured, signed callback of an unfinished token

With nginx on this machine all requests go through the shipped proxy, those of the attacker from 20 addresses.
"""

import argparse
import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
from pydantic import SecretStr

from app.config import Settings
from app.domain.api_key import Scope
from app.factory import open_services
from app.observability import configure_logging
from app.services.clock import now
from app.webhooks.signatures import new_secret, signed_headers
from benchmarks import harness
from benchmarks.figures import resident_mb
from tests.support.postgres import durable_postgres
from tests.support.processes import temporary_folder
from tests.support.proxy import nginx
from tests.support.servers import NGINX
from tests.support.service import actor, set_up, settings_for

MOST_P99_SECONDS = 2.0
MOST_MB = 300.0
_HONEST = "passed-honest-"
_HONEST_PER_SECOND = 5
_DROPS_AT_ONCE = 100
_ATTACKS_PER_SECOND = 200
_ADDRESSES = [f"127.0.1.{number}" for number in range(1, 21)]
# A single token: the interval between two calls begins with 2 s.
_MOST_CALLS_PER_SECOND = 0.5
_SECRET = new_secret()


@dataclass(frozen=True, slots=True)
class Target:
    """The service under attack, and a key of the attacker."""

    port: int
    key: str

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of a request with the key."""
        return {"Authorization": f"Bearer {self.key}"}


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of an attack: the seconds of honest callers (None if refused), memory, and Tencent's calls."""

    kind: str
    took: Sequence[float | None]
    megabytes: float
    honest_calls: int
    other_calls: int
    most_other_calls: float

    @property
    def p99(self) -> float:
        """The 99th percentile of the time from a callback to its result."""
        return statistics.quantiles(self._served, n=100, method="inclusive")[98]

    @property
    def refused(self) -> int:
        """The number of honest callers that did not get their result."""
        return len(self.took) - len(self._served)

    @property
    def _served(self) -> Sequence[float]:
        return [each for each in self.took if each is not None]

    @property
    def is_good(self) -> bool:
        """Whether the targets are met."""
        is_bounded = self.other_calls <= self.most_other_calls
        return self.p99 <= MOST_P99_SECONDS and self.megabytes < MOST_MB and not self.refused and is_bounded

    def __str__(self) -> str:
        median = statistics.median(self._served)
        return (
            f"{self.kind}: callback to result p50 {median:.2f} s, p99 {self.p99:.2f} s (<= {MOST_P99_SECONDS:g}); "
            f"process {self.megabytes:.0f} MB (< {MOST_MB:g}); refused requests of others {self.refused} (0); "
            f"calls to Tencent: {self.honest_calls} honest, {self.other_calls} others (<= {self.most_other_calls:g})"
        )


async def _none(_: Target, until: float) -> None:
    await asyncio.sleep(until - time.monotonic())


async def _waits(target: Target, until: float) -> None:
    request = (
        f"GET /v1/verifications/held?wait=60 HTTP/1.1\r\nHost: attack\r\nAuthorization: Bearer {target.key}\r\n\r\n"
    )
    addresses = itertools.cycle(_ADDRESSES)
    while time.monotonic() < until:
        opened = [
            await asyncio.open_connection("127.0.0.1", target.port, local_addr=(next(addresses), 0))
            for _ in range(_DROPS_AT_ONCE)
        ]
        for _, writer in opened:
            writer.write(request.encode())
        await asyncio.sleep(0.2)
        for _, writer in opened:
            writer.close()


async def _callbacks(target: Target, until: float) -> None:
    await _flood(target, until, lambda api, n: _call_back(api, target, {"BizToken": f"unfinished-9-made-up-{n}"}))


async def _rules(target: Target, until: float) -> None:
    def body(number: int) -> Mapping[str, str]:
        return {"BizToken": f"error-InvalidParameterValue.RuleIdNotExist-{number}", "RuleId": f"made-up-{number}"}

    await _flood(target, until, lambda api, n: _call_back(api, target, body(n)))


async def _redirects(target: Target, until: float) -> None:
    query = {"BizToken": "unfinished-registered"}
    await _flood(target, until, lambda api, _: api.get("/v1/callbacks/redirect", params=query))


async def _replays(target: Target, until: float) -> None:
    body = b'{"BizToken": "unfinished-registered"}'
    headers = {"Content-Type": "application/json", **signed_headers([_SECRET], "msg_captured", now(), body)}
    await _flood(target, until, lambda api, _: api.post("/v1/callbacks", content=body, headers=headers))


def _call_back(api: httpx.AsyncClient, target: Target, body: Mapping[str, str]) -> Awaitable[httpx.Response]:
    return api.post("/v1/callbacks", json=body, headers=target.headers)


async def _flood(
    target: Target, until: float, send: Callable[[httpx.AsyncClient, int], Awaitable[httpx.Response]]
) -> None:
    """Sends numbered requests at a steady rate, each address one after the other."""
    numbers = itertools.count()

    async def from_address(address: str) -> None:
        transport = httpx.AsyncHTTPTransport(local_address=address)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{target.port}", transport=transport, timeout=30
        ) as api:
            while time.monotonic() < until:
                due = time.monotonic() + len(_ADDRESSES) / _ATTACKS_PER_SECOND
                await send(api, next(numbers))
                await asyncio.sleep(due - time.monotonic())

    await asyncio.gather(*map(from_address, _ADDRESSES))


ATTACKS = {
    "none": _none,
    "waits": _waits,
    "callbacks": _callbacks,
    "rules": _rules,
    "redirects": _redirects,
    "replays": _replays,
}
_OF_ONE_TOKEN = {"redirects", "replays"}


async def run(kind: str, *, seconds: float, database: str = "sqlite") -> Report:
    """Runs one attack."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        postgres = await stack.enter_async_context(durable_postgres(folder)) if database == "postgres" else None
        faceid = await stack.enter_async_context(harness.simulator(folder))
        settings = settings_for(
            folder,
            str(faceid.base_url),
            database_url=postgres and postgres.url,
            media_url=(folder / "media").as_uri(),
            faceid_info_type="1",
            faceid_requests_per_second=46,
            accept_unknown_rules=kind == "rules",
            callback_secrets=SecretStr(_SECRET),
        )
        honest, attacker = await set_up(settings), await _attacker(settings)
        server = await stack.enter_async_context(harness.serving(settings))
        port = _proxied(stack, folder, server.port) if NGINX else server.port
        headers = {"Authorization": f"Bearer {honest}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as api:
            (await api.put("/v1/verifications/held", params={"client": "attacker"})).raise_for_status()
            (await api.put("/v1/verifications/unfinished-registered")).raise_for_status()
            until = time.monotonic() + seconds
            attack = asyncio.create_task(ATTACKS[kind](Target(port, attacker), until))
            took = await asyncio.gather(*(_honest(api, n) for n in range(int(seconds * _HONEST_PER_SECOND))))
        await attack
        ledger = (await faceid.get("/_simulator/ledger")).json()["entries"]
        honest_calls = sum(entry["biz_token"].startswith(_HONEST) for entry in ledger)
        return Report(
            kind=kind,
            took=took,
            megabytes=resident_mb(server.child.pid or 0),
            honest_calls=honest_calls,
            other_calls=len(ledger) - honest_calls,
            most_other_calls=seconds * _MOST_CALLS_PER_SECOND + 1 if kind in _OF_ONE_TOKEN else float("inf"),
        )


def _proxied(stack: AsyncExitStack, folder: Path, port: int) -> int:
    """Puts nginx in front of a port; returns its own."""
    # Its user must be able to enter the folder and its parents.
    place = folder / "proxy" / "nginx"
    place.mkdir(parents=True)
    _, front = stack.enter_context(nginx(place, [port]))
    return front


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
        await api.post("/v1/callbacks", json={"BizToken": f"{_HONEST}{number}", "RuleId": "1"}),
        await api.get(f"/v1/verifications/{_HONEST}{number}", params={"wait": 50, "client": "default"}),
    ]
    is_served = all(answer.is_success for answer in answers) and answers[1].json()["state"] == "retrieved"
    return time.monotonic() - start if is_served else None


def main() -> int:
    """Runs the attacks one after the other. Exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="make bench-flood", description="One caller attacks, another is measured.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--only", choices=list(ATTACKS))
    arguments = parser.parse_args()
    configure_logging("ERROR")
    sys.stdout.write(f"{'through nginx' if NGINX else 'without a proxy'}, on {arguments.database}\n")
    is_good = True
    for kind in [arguments.only] if arguments.only else ATTACKS:
        report = asyncio.run(run(kind, seconds=arguments.seconds, database=arguments.database))
        sys.stdout.write(f"{report}\n")
        sys.stdout.flush()
        is_good &= report.is_good
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
