"""How much of Tencent's quota several workers use, and whether they ever exceed it: `make bench-quota`.

Real workers on one Postgres that syncs, with a simulator that only counts. Calls are counted over `seconds` after all
workers are up; sliding seconds over the whole run, including its start and end.
"""

import argparse
import asyncio
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from itertools import product

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from app.config import Settings
from app.domain.verification import TokenFacts
from app.factory import open_services
from app.observability import configure_logging
from app.services.clock import now
from benchmarks import harness
from benchmarks.arrivals import per_second
from tests.chaos.reconcile import count_open
from tests.support.postgres import durable_postgres
from tests.support.processes import temporary_folder
from tests.support.service import UNLIMITED, actor, set_up, settings_for

QUOTA = 50
"""GetDetectInfo calls per second that Tencent allows by default."""
LEAST_USED_PERCENT = 90.0
DEFAULT_RATE = Settings.default().faceid.faceid_requests_per_second

# The start and end of the workers, and what they could catch up.
_SPARE_SECONDS = 15.0
# The ledger of the simulator keeps the latest 10,000 calls.
_LONGEST_SECONDS = 100.0
# Concurrent registrations.
_AT_ONCE = 10
# A registered token of this age is due at once.
_BORN_AGO = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One run. `rate` is FACEID_REQUESTS_PER_SECOND; `kill` ends one worker by kill -9 in the middle."""

    workers: int = 2
    rate: float = DEFAULT_RATE
    seconds: float = 60.0
    info_type: str = "1"
    database: str = "postgres"
    kill: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a run: all arrivals, ascending, in seconds since the epoch, and the simulator's own peak."""

    options: Options
    arrivals: Sequence[float]
    peak: int
    started_at: float

    @property
    def calls(self) -> int:
        """The calls within the measured time."""
        return sum(0 <= at - self.started_at < self.options.seconds for at in self.arrivals)

    @property
    def used_percent(self) -> float:
        """The share of the quota that those calls used."""
        return 100 * self.calls / (QUOTA * self.options.seconds)

    @property
    def most(self) -> int:
        """The most calls in any sliding second."""
        return max(per_second(self.arrivals), default=0)

    @property
    def too_many(self) -> int:
        """The number of sliding seconds, one ending at each call, with more calls than the quota."""
        return sum(count > QUOTA for count in per_second(self.arrivals))

    @property
    def is_good(self) -> bool:
        """Whether the targets are met. Only the default rate has targets."""
        return self.options.rate != DEFAULT_RATE or (self.most <= QUOTA and self.used_percent >= LEAST_USED_PERCENT)

    @property
    def figures(self) -> Mapping[str, str]:
        """The line of the table."""
        options = self.options
        return {
            "workers": f"{options.workers}{' (kill -9)' if options.kill else ''}",
            "parts": options.info_type,
            "rate": f"{options.rate:g}/s",
            f"in {options.seconds:g} s": str(self.calls),
            "else": str(len(self.arrivals) - self.calls),
            "used": f"{self.used_percent:.1f} %",
            "peak": str(self.most),
            "ledger": str(self.peak),
            f"over {QUOTA}": str(self.too_many),
        }


async def run(options: Options) -> Report:
    """Sets everything up, measures, and cleans up.

    Raises:
        RuntimeError: a process did not start, or the work ran out.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        postgres = await stack.enter_async_context(durable_postgres(folder)) if options.database == "postgres" else None
        faceid = await stack.enter_async_context(harness.simulator(folder, "--requests-per-second", "0"))
        settings = settings_for(
            folder,
            str(faceid.base_url),
            database_url=postgres and postgres.url,
            media_url=(folder / "media").as_uri(),
            faceid_info_type=options.info_type,
            faceid_requests_per_second=options.rate,
            **UNLIMITED,
        )
        await _register(settings, math.ceil(options.rate * (options.seconds + _SPARE_SECONDS)))
        async with harness.workers(settings, options.workers) as children:
            started_at = time.time()
            await asyncio.sleep(options.seconds / 2)
            if options.kill:
                children[0].kill()
            await asyncio.sleep(options.seconds / 2)
        await _require_work_left(settings)
        ledger = (await faceid.get("/_simulator/ledger")).json()
    return Report(
        options=options,
        arrivals=sorted(entry["at"] for entry in ledger["entries"]),
        peak=ledger["peak_per_second"]["GetDetectInfo"],
        started_at=started_at,
    )


async def _register(settings: Settings, count: int) -> None:
    key = await set_up(settings)
    tokens = iter([f"passed-{number:05}" for number in range(count)])
    async with open_services(settings) as services:
        caller = actor(await services.api_keys.authenticate(key))
        facts = TokenFacts(created_at=now() - _BORN_AGO)

        async def some() -> None:
            for biz_token in tokens:
                await services.intake.register(caller, biz_token, facts)

        await asyncio.gather(*(some() for _ in range(_AT_ONCE)))


async def _require_work_left(settings: Settings) -> None:
    async with open_services(settings) as services:
        if not await count_open(services.database):
            raise RuntimeError("The work ran out, so the figures are meaningless.")


def table(reports: Sequence[Report]) -> Table:
    """Returns a line for each run: the calls within and outside the measured time, and the sliding seconds."""
    lines = [report.figures for report in reports]
    drawn = Table(*lines[0], title="GetDetectInfo calls, by their arrival", title_justify="left", box=SIMPLE)
    for report, line in zip(reports, lines, strict=True):
        drawn.add_row(*line.values(), style="" if report.is_good else "bold red")
    return drawn


def main() -> int:
    """Measures all runs and prints the table. Exit code 1 if the default rate missed a target."""
    arguments = _arguments()
    configure_logging("ERROR")
    reports = [asyncio.run(run(options)) for options in _runs(arguments)]
    Console().print(table(reports))
    return 0 if all(report.is_good for report in reports) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-quota", description="Counts the calls of workers to FaceID.")
    parser.add_argument("--seconds", type=_seconds, default=60.0, help=f"of each run; {_LONGEST_SECONDS:g} at most")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rate", type=float, nargs="+", default=[DEFAULT_RATE, 48.0], help="calls/s to be set")
    parser.add_argument("--info-type", nargs="+", default=["1"], help="1 for the text only, 0 for everything")
    parser.add_argument("--kill", action="store_true", help="kill -9 one worker in the middle")
    return parser.parse_args()


def _seconds(text: str) -> float:
    if not 0 < (seconds := float(text)) <= _LONGEST_SECONDS:
        raise ValueError(text)
    return seconds


def _runs(arguments: argparse.Namespace) -> Iterator[Options]:
    for info_type, rate, workers in product(arguments.info_type, arguments.rate, arguments.workers):
        yield Options(workers=workers, rate=rate, seconds=arguments.seconds, info_type=info_type, kill=arguments.kill)


if __name__ == "__main__":
    sys.exit(main())
