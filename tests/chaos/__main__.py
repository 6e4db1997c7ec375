"""Runs `python -m tests.chaos --seed 7 --kills 1000 --database postgres`. Exit code 1 if a check fails."""

import argparse
import asyncio
import logging
import statistics
import sys
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.table import Table

from app.observability import configure_logging
from tests.chaos.run import QUIET_SECONDS, Options, Report, run

_MAX_SHOWN = 10


def main() -> int:
    """Runs on each database and prints the figures."""
    arguments = _arguments()
    configure_logging("ERROR")
    # The simulator's server logs an error for every connection that the plan cuts.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    console = Console()
    is_ok = True
    for database in [arguments.database] if arguments.database else ["sqlite", "postgres"]:
        options = Options(
            database=database,
            media=arguments.media or {"sqlite": "folder", "postgres": "bucket"}[database],
            seed=arguments.seed,
            kills=arguments.kills,
            pace=arguments.pace,
            seconds=arguments.seconds,
        )
        report = asyncio.run(run(options))
        console.print(_table(report))
        console.print(*_problems(report), sep="\n", markup=False, highlight=False, soft_wrap=True)
        is_ok = is_ok and not any(report.zeros.values())
    return 0 if is_ok else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make chaos", description="Kills processes, injects faults, then checks the stored data."
    )
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same tokens and faults")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pace", type=float, default=0.5, help="mean of the seconds between two kills")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end the faults after this time")
    parser.add_argument("--database", choices=["sqlite", "postgres"], help="only this one")
    parser.add_argument("--media", choices=["folder", "bucket"], help="default: a bucket with postgres")
    return parser.parse_args()


def _table(report: Report) -> Table:
    options = report.options
    table = Table(
        title=f"chaos on {options.database} and a {options.media}, seed {options.seed}",
        show_header=False,
        title_justify="left",
    )
    for name, value in _figures(report):
        table.add_row(name, value)
    table.add_section()
    for name, number in report.zeros.items():
        table.add_row(name, str(number), style="bold red" if number else "green")
    return table


def _figures(report: Report) -> Iterator[tuple[str, str]]:
    scene, found = report.scene, report.findings
    yield "kills -9", f"{scene.kills.total()}: {_listed(scene.kills.items())}"
    yield "other faults", f"{scene.faults.total()}: {_listed(scene.faults.items())}"
    yield "calls with a fault", _listed(scene.upstream.met.items())
    yield "tokens", f"{len(scene.sent_tokens)} sent, {len(scene.acknowledged)} acknowledged"
    yield "requests to the API", f"{scene.sent}: {_listed(scene.statuses.items())}"
    yield "calls to FaceID", f"{found.calls}, {found.refused} refused, {report.most_per_second} within a second"
    yield "media", f"{found.media} named by rows"
    yield "events", f"{found.events} events, {found.deliveries} deliveries"
    yield "orphans before the sweep", f"{found.objects_before} objects, {found.spool_files_before} spool files"
    yield "duration of the faults", f"{report.fault_seconds:.1f} s"
    settings = f"FACEID_TIMEOUT_SECONDS={report.options.call_seconds}"
    yield "quiet after the last fault", f"{report.seconds_to_quiet:.1f} s of {QUIET_SECONDS:.0f}, with {settings}"
    if found.seconds:
        seconds = list(found.seconds.values())
        worst = max(found.seconds, key=lambda biz_token: found.seconds[biz_token])
        waited = f"{statistics.median(seconds):.2f} s median, {max(seconds):.1f} s worst"
        yield "received to retrieved", f"{waited}: {worst}"
    for child in report.children:
        times = f"slowest start {child.slowest_start:.1f} s, stop {child.slowest_stop:.1f} s"
        yield child.name, f"{child.starts} starts, {times}, exit codes {dict(child.exit_codes)}"


def _problems(report: Report) -> Iterator[str]:
    found = report.findings
    for name in ("lost", "open", "wrong", "dangling", "unreported"):
        for text in getattr(found, name)[:_MAX_SHOWN]:
            yield f"{name}: {text}"
    for child in report.children:
        for text, times in sorted(child.logged.items()):
            if times:
                yield f"{child.name} logged {times} times: {text}"
        if child.was_stuck:
            yield f"{child.name} did not stop: {list(child.last_lines)}"


def _listed(figures: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(figures) if number) or "none"


if __name__ == "__main__":
    sys.exit(main())
