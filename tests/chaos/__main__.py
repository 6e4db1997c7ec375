"""The command: `python -m tests.chaos --seed 7 --kills 1000 --database postgres`. Exit code 1 if a zero is not zero."""

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

_SHOWN = 10


def main() -> int:
    """Runs on each database and prints the figures."""
    asked = _arguments()
    configure_logging("ERROR")
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # the simulator's server says of every cut that it was one
    console = Console()
    is_good = True
    for database in [asked.database] if asked.database else ["sqlite", "postgres"]:
        options = Options(database=database, seed=asked.seed, kills=asked.kills, pace=asked.pace, seconds=asked.seconds)
        report = asyncio.run(run(options))
        console.print(_table(report))
        console.print(*_troubles(report), sep="\n", markup=False, highlight=False, soft_wrap=True)
        is_good = is_good and not any(report.zeros.values())
    return 0 if is_good else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description="Kills, cuts and spoils; then counts what is left.")
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same tokens and faults")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pace", type=float, default=0.5, help="mean of the seconds between two kills")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end the faults after that long")
    parser.add_argument("--database", choices=["sqlite", "postgres"], help="only this one")
    return parser.parse_args()


def _table(report: Report) -> Table:
    options = report.options
    table = Table(title=f"chaos on {options.database}, seed {options.seed}", show_header=False, title_justify="left")
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
    yield "calls that met one", _listed(scene.upstream.met.items())
    yield "tokens", f"{len(scene.told)} told of, {len(scene.acknowledged)} acknowledged"
    yield "requests to the API", f"{scene.sent}: {_listed(scene.statuses.items())}"
    yield "calls to FaceID", f"{found.calls}, {found.refused} refused, {report.most_per_second} within a second"
    yield "media", f"{found.media} named by rows"
    yield "orphans before the sweep", f"{found.objects_before} objects, {found.drafts_before} drafts"
    yield "the faults took", f"{report.fault_seconds:.1f} s"
    settings = f"FACEID_TIMEOUT_SECONDS={report.options.call_seconds}"
    yield "quiet after the last", f"{report.seconds_to_quiet:.1f} s of {QUIET_SECONDS:.0f}, with {settings}"
    if found.seconds:
        seconds = list(found.seconds.values())
        worst = max(found.seconds, key=lambda biz_token: found.seconds[biz_token])
        waited = f"{statistics.median(seconds):.2f} s median, {max(seconds):.1f} s worst"
        yield "received to retrieved", f"{waited}: {worst}"
    for child in report.children:
        times = f"slowest start {child.slowest_start:.1f} s, stop {child.slowest_stop:.1f} s"
        yield child.name, f"{child.starts} starts, {times}, exit codes {dict(child.exit_codes)}"


def _troubles(report: Report) -> Iterator[str]:
    found = report.findings
    for name in ("lost", "open", "wrong", "dangling"):
        for text in getattr(found, name)[:_SHOWN]:
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
