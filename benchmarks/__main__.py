"""All benchmarks: `python -m benchmarks`. Prints a table, and writes it to `benchmarks/results.md`."""

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from app.observability import configure_logging
from benchmarks import (
    console,
    downloads,
    exports,
    hostile,
    lists,
    long_poll,
    requests,
    retrieval,
    streams,
    webhooks,
    worker_throughput,
)
from benchmarks.figures import Line, page, table

RESULTS = Path(__file__).with_name("results.md")


def retrieving(folder: Path, *, is_smoke: bool) -> AsyncIterator[Line]:
    """Retrievals."""
    if is_smoke:
        return retrieval.lines(folder, rounds=1, count=1, video_bytes=200_000)
    return retrieval.lines(folder, rounds=5, count=8)


def draining(folder: Path, *, is_smoke: bool) -> AsyncIterator[Line]:
    """Measures the worker alone."""
    return (
        worker_throughput.lines(folder, rounds=1, count=200)
        if is_smoke
        else worker_throughput.lines(folder, rounds=3, count=4000)
    )


def answering(folder: Path, *, is_smoke: bool) -> AsyncIterator[Line]:
    """Callbacks, and reads of one result."""
    if is_smoke:
        return requests.lines(folder, rounds=1, seconds=0.5, results=5)
    return requests.lines(folder, rounds=3, seconds=5, results=500)


def sending(folder: Path, *, is_smoke: bool) -> AsyncIterator[Line]:
    """Downloads of media."""
    if is_smoke:
        return downloads.lines(folder, rounds=1, seconds=0.5, video_bytes=700_000)
    return downloads.lines(folder, rounds=3, seconds=3)


def listing(folder: Path, *, is_smoke: bool, rows: int = 1_000_000) -> AsyncIterator[Line]:
    """Pages of lists."""
    if is_smoke:
        return lists.lines(folder, sizes=(800, 1600), rare=20, limit=2, rounds=1)
    return lists.lines(folder, sizes=(10_000, rows), rare=250, limit=50, rounds=10)


def showing(folder: Path, *, is_smoke: bool, rows: int = 1_000_000) -> AsyncIterator[Line]:
    """Pages of the console."""
    if is_smoke:
        return console.lines(folder, count=1600, rare=20, requests=2)
    return console.lines(folder, count=rows, rare=250, requests=30)


def holding(folder: Path, *, is_smoke: bool) -> AsyncIterator[Line]:
    """Callers that wait for a result."""
    return (
        long_poll.waiting(folder, waiters=20, seconds=0.5)
        if is_smoke
        else long_poll.waiting(folder, waiters=1000, seconds=5)
    )


def streaming(folder: Path, *, is_smoke: bool) -> AsyncIterator[Line]:
    """Streams of events."""
    if is_smoke:
        return streams.lines(folder, streams=20, events=2, seconds=0.5)
    return streams.lines(folder, streams=1000, events=50, seconds=30)


def resting(folder: Path, *, is_smoke: bool) -> AsyncIterator[Line]:
    """Measures an idle service."""
    return long_poll.idle(folder, seconds=0.5 if is_smoke else 30)


def withstanding(_: Path, *, is_smoke: bool) -> AsyncIterator[Line]:
    """Measures answers of a hostile Tencent."""
    return hostile.lines(rounds=1, most=1) if is_smoke else hostile.lines(rounds=3)


def exporting(folder: Path, *, is_smoke: bool) -> AsyncIterator[Line]:
    """Exports of many rows."""
    return exports.lines(folder, rows=200 if is_smoke else 100_000)


def delivering(folder: Path, *, is_smoke: bool) -> AsyncIterator[Line]:
    """Deliveries to webhook endpoints."""
    if is_smoke:
        return webhooks.lines(folder, callbacks=3, deliveries=160)
    return webhooks.lines(folder, callbacks=100, deliveries=4800)


SECTIONS: Mapping[str, Callable[..., AsyncIterator[Line]]] = {
    "retrieval": retrieving,
    "worker": draining,
    "requests": answering,
    "media": sending,
    "lists": listing,
    "console": showing,
    "wait": holding,
    "streams": streaming,
    "idle": resting,
    "hostile": withstanding,
    "exports": exporting,
    "webhooks": delivering,
}


# These can be 0: a process may use less memory than before, or less than one tick of the CPU.
_MAY_BE_ZERO = {"MB", "MB more", "KiB", "% of a core", "ms CPU"}
_WITH_ROWS = {"lists", "console"}


async def measure(names: Iterable[str], *, is_smoke: bool, rows: int | None = None) -> list[Line]:
    """Measures sections and returns their lines. `rows` is the size of the large database of the lists and the console.

    Raises:
        RuntimeError: a section measured nothing.
    """
    lines = []
    for name in names:
        with TemporaryDirectory(prefix="bench-") as folder:
            more = {"rows": rows} if rows and name in _WITH_ROWS else {}
            lines += [line async for line in SECTIONS[name](Path(folder), is_smoke=is_smoke, **more)]
    if nothing := [line.what for line in lines if line.ours <= 0 and line.unit not in _MAY_BE_ZERO]:
        raise RuntimeError(f"Nothing was measured of: {', '.join(nothing)}.")
    return lines


def main() -> None:
    """Measures and prints. Only a complete run that is no smoke run is written to the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--smoke", action="store_true", help="run each section once and small, to check the harness")
    parser.add_argument("--rows", type=int, help="rows of the large databases; 1000000 by default")
    arguments = parser.parse_args()
    configure_logging("ERROR")
    lines = asyncio.run(measure(arguments.only, is_smoke=arguments.smoke, rows=arguments.rows))
    Console(width=140).print(table(lines))
    if not arguments.smoke and set(arguments.only) == set(SECTIONS):
        RESULTS.write_text(page(lines, "make bench"))


if __name__ == "__main__":
    main()
