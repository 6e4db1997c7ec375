"""How much of Tencent's quota several workers use, and whether they ever use more: `make bench-quota`.

Real workers on one Postgres that syncs, at a simulator that only counts. Calls are counted over `seconds` from when all
workers are up; sliding seconds over all of the run, the start and the end included.
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
from app.domain.verification import Facts
from app.factory import now, open_services
from app.observability import configure_logging
from benchmarks import stage
from benchmarks.arrivals import per_second
from tests.chaos.reconcile import count_open
from tests.support.postgres import durable_postgres
from tests.support.processes import temporary_folder
from tests.support.service import set_up, settings_for

QUOTA = 50
"""GetDetectInfo calls per second that Tencent lets in by default."""
LEAST_USED_PERCENT = 90.0
DEFAULT_RATE: float = Settings.model_fields["faceid_requests_per_second"].default

_SPARE_SECONDS = 15.0  # the workers' start and end, and what they could catch up
_LONGEST_SECONDS = 100.0  # the simulator's ledger keeps the latest 10,000 calls
_AT_ONCE = 10  # registrations
_BORN_AGO = timedelta(hours=1)  # so that a registered token is due at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One run; `rate` is FACEID_REQUESTS_PER_SECOND, `kill` ends one worker by kill -9 in the middle."""

    workers: int = 2
    rate: float = DEFAULT_RATE
    seconds: float = 60.0
    info_type: str = "1"
    database: str = "postgres"
    kill: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of it: every arrival of the run, ascending, in s since the epoch, and the simulator's own peak."""

    options: Options
    arrivals: Sequence[float]
    peak: int
    started_at: float

    @property
    def calls(self) -> int:
        """Those within the time that is measured."""
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
        """How many sliding seconds, one ending at each call, had more calls than the quota."""
        return sum(count > QUOTA for count in per_second(self.arrivals))

    @property
    def is_good(self) -> bool:
        """Whether it is as promised; nothing is promised of other rates than the default."""
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
    """Sets it all up, measures, and leaves nothing behind.

    Raises:
        RuntimeError: a process did not come up, or the work ran out.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        postgres = await stack.enter_async_context(durable_postgres(folder)) if options.database == "postgres" else None
        faceid = await stack.enter_async_context(stage.simulator(folder, "--requests-per-second", "0"))
        settings = settings_for(
            folder,
            str(faceid.base_url),
            database_url=postgres and postgres.url,
            media_url=(folder / "media").as_uri(),
            faceid_info_type=options.info_type,
            faceid_requests_per_second=options.rate,
        )
        await _register(settings, math.ceil(options.rate * (options.seconds + _SPARE_SECONDS)))
        async with stage.workers(settings, options.workers) as children:
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
        caller = await services.access.authenticate(key)
        facts = Facts(created_at=now() - _BORN_AGO)

        async def some() -> None:
            for biz_token in tokens:
                await services.receive.register(caller, biz_token, facts)

        await asyncio.gather(*(some() for _ in range(_AT_ONCE)))


async def _require_work_left(settings: Settings) -> None:
    async with open_services(settings) as services:
        if not await count_open(services.database):
            raise RuntimeError("The work ran out: the figures would say nothing.")


def table(reports: Sequence[Report]) -> Table:
    """A line for each run: the calls within and outside the time that is measured, and the sliding seconds."""
    lines = [report.figures for report in reports]
    drawn = Table(*lines[0], title="GetDetectInfo calls, by their arrival", title_justify="left", box=SIMPLE)
    for report, line in zip(reports, lines, strict=True):
        drawn.add_row(*line.values(), style="" if report.is_good else "bold red")
    return drawn


def main() -> int:
    """Runs all that was asked for and prints the table. Exit code 1 if the default rate broke its promise."""
    asked = _arguments()
    configure_logging("ERROR")
    reports = [asyncio.run(run(options)) for options in _runs(asked)]
    Console().print(table(reports))
    return 0 if all(report.is_good for report in reports) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-quota", description="Counts what workers ask of FaceID.")
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


def _runs(asked: argparse.Namespace) -> Iterator[Options]:
    for info_type, rate, workers in product(asked.info_type, asked.rate, asked.workers):
        yield Options(workers=workers, rate=rate, seconds=asked.seconds, info_type=info_type, kill=asked.kill)


if __name__ == "__main__":
    sys.exit(main())
