"""Costs of a process, lines of figures, and the tables that show them."""

import os
import platform
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

_TICKS = os.sysconf("SC_CLK_TCK")
# A process that used less than one tick of the CPU is measured as 0: ratios divide by this instead.
_LEAST = 1e-9
# Numbers from here on have three digits before the point.
_WITHOUT_FRACTION = 100
_MEASURED = ("cryptography", "fastapi", "httpx", "sqlalchemy", "uvicorn", "tencentcloud-sdk-python-faceid")


@dataclass(slots=True)
class Cost:
    """The cost of something: seconds of CPU and of wall time, and the peak of memory in megabytes above the start."""

    cpu: float = 0.0
    seconds: float = 0.0
    peak_mb: float = 0.0


@contextmanager
def measured() -> Iterator[Cost]:
    """Measures the cost of the block to this process with all its threads. Linux only."""
    cost, before = Cost(), _cpu_here()
    # Resets the peak of memory, see proc(5).
    Path("/proc/self/clear_refs").write_text("5")
    held, start = _memory_mb("VmRSS"), time.perf_counter()
    yield cost
    cost.seconds = time.perf_counter() - start
    cost.cpu = _cpu_here() - before
    cost.peak_mb = max(_memory_mb("VmHWM") - held, 0.0)


def cpu_of(pids: Sequence[int]) -> float:
    """Returns the seconds of CPU that the processes have used so far."""
    return sum(map(_cpu_there, pids))


def resident_mb(pid: int) -> float:
    """Returns the resident memory of a process in megabytes."""
    return _memory_mb("VmRSS", pid)


def _cpu_here() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _cpu_there(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _memory_mb(name: str, pid: int | str = "self") -> float:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure: ours, the peer's, and the target.

    The target applies to `ratio`, or to `ours` if there is no peer. `is_met` is None if there is no target.
    """

    what: str
    unit: str
    ours: float
    peer: float | None = None
    peer_name: str = ""
    ratio: float | None = None
    target: str = ""
    is_met: bool | None = None

    @classmethod
    def at_least(cls, what: str, unit: str, ours: float, peer: float, peer_name: str, *, least: float | None) -> "Line":
        """Compares figures of which more is better: ours divided by the peer's."""
        ratio = ours / max(peer, _LEAST)
        target, is_met = (f">= {least:g}x", ratio >= least) if least else ("", None)
        return cls(
            what=what, unit=unit, ours=ours, peer=peer, peer_name=peer_name, ratio=ratio, target=target, is_met=is_met
        )

    @classmethod
    def cheaper(cls, what: str, unit: str, ours: float, peer: float, peer_name: str, *, times: float | None) -> "Line":
        """Less is better: the peer's divided by ours."""
        ratio = peer / max(ours, _LEAST)
        target, is_met = (f">= {times:g}x less", ratio >= times) if times else ("", None)
        return cls(
            what=what, unit=unit, ours=ours, peer=peer, peer_name=peer_name, ratio=ratio, target=target, is_met=is_met
        )

    @classmethod
    def at_most(
        cls, what: str, unit: str, ours: float, peer: float, peer_name: str, *, most: float | None = None
    ) -> "Line":
        """Less is better: ours divided by the peer's, which is a floor."""
        ratio = ours / max(peer, _LEAST)
        target, is_met = (f"<= {most:g}x", ratio <= most) if most else ("", None)
        return cls(
            what=what, unit=unit, ours=ours, peer=peer, peer_name=peer_name, ratio=ratio, target=target, is_met=is_met
        )

    @classmethod
    def plain(
        cls, what: str, unit: str, ours: float, *, most: float | None = None, least: float | None = None
    ) -> "Line":
        """Returns a figure without a peer."""
        if most is not None:
            return cls(what=what, unit=unit, ours=ours, target=f"<= {most:g} {unit}", is_met=ours <= most)
        if least is not None:
            return cls(what=what, unit=unit, ours=ours, target=f">= {least:g} {unit}", is_met=ours >= least)
        return cls(what=what, unit=unit, ours=ours)

    @property
    def cells(self) -> Sequence[str]:
        """The line as cells of a table."""
        met = "" if self.is_met is None else "yes" if self.is_met else "NO"
        peer = "" if self.peer is None else f"{_short(self.peer)} ({self.peer_name})"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return self.what, self.unit, _short(self.ours), peer, ratio, self.target, met


HEADER = ("what", "unit", "ours", "peer", "ratio", "target", "met")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= _WITHOUT_FRACTION else f"{value:.3g}"


def table(lines: Sequence[Line]) -> Table:
    """Returns the lines as a table for the terminal."""
    drawn = Table(*HEADER, box=SIMPLE)
    for line in lines:
        drawn.add_row(*line.cells)
    return drawn


def page(lines: Sequence[Line], command: str) -> str:
    """Returns the lines as the text of `benchmarks/results.md`."""
    cells = (HEADER, ("---",) * len(HEADER), *(line.cells for line in lines))
    rows = ["| " + " | ".join(row) + " |" for row in cells]
    versions = ", ".join(f"{name} {version(name)}" for name in _MEASURED)
    return "\n".join(
        [
            "# Results",
            "",
            f"Written by `{command}` on {datetime.now(UTC):%Y-%m-%d}; medians of interleaved rounds, all processes on",
            "one machine. The lines are explained in [performance](../docs/performance.md).",
            "",
            f"Machine: {os.cpu_count()} cores ({_processor()}), {_total_gib():.0f} GiB, Linux {platform.release()},",
            f"Python {platform.python_version()}; {versions}.",
            "",
            *rows,
            "",
        ]
    )


def _processor() -> str:
    names = [row.partition(": ")[2] for row in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in row]
    return names[0] if names else platform.machine()


def _total_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
