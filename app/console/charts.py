"""Charts as geometry: the template draws them as SVG, with colours by class, so no script is needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from app.domain.detection import Outcome
from app.services.overview import DayCount

WIDTH, HEIGHT = 720, 180
_TOP, _BOTTOM, _LEFT, _RIGHT = 10, 22, 36, 8
_GAP_SHARE = 0.26
_STEPS = (1, 2, 5)
_ORDER = (Outcome.PASSED, Outcome.FAILED, Outcome.UNFINISHED)
_LABEL_EVERY = 5


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a bar."""

    outcome: Outcome
    y: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """The bar of a day, with its counts. `has_label`: its day is written below it."""

    day: date
    x: float
    width: float
    segments: Sequence[Segment]
    counts: Mapping[Outcome, int]
    has_label: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Bars, and the lines of the scale with their values."""

    bars: Sequence[Bar]
    lines: Sequence[tuple[float, int]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT


def stacked(days: Sequence[DayCount]) -> Chart:
    """Returns the stacked bars of some days, oldest first."""
    top = _nice(max((day.total for day in days), default=0))
    scale = (HEIGHT - _TOP - _BOTTOM) / top
    pitch = (WIDTH - _LEFT - _RIGHT) / max(len(days), 1)
    base = HEIGHT - _BOTTOM
    bars = [
        Bar(
            day=day.day,
            x=round(_LEFT + place * pitch + pitch * _GAP_SHARE / 2, 1),
            width=round(pitch * (1 - _GAP_SHARE), 1),
            segments=_segments(day, base, scale),
            counts=day.counts,
            has_label=(len(days) - 1 - place) % _LABEL_EVERY == 0,
        )
        for place, day in enumerate(days)
    ]
    lines = [(round(base - value * scale, 1), value) for value in (0, top // 2, top) if value or top]
    return Chart(bars=bars, lines=sorted(set(lines)))


def _segments(day: DayCount, base: float, scale: float) -> Sequence[Segment]:
    segments, y = [], base
    for outcome in _ORDER:
        height = day.counts[outcome] * scale
        y -= height
        if height:
            segments.append(Segment(outcome, round(y, 1), round(height, 1)))
    return segments


def _nice(largest: int) -> int:
    """Returns the end of the scale: an even round number that is at least the largest value."""
    power = 2
    while True:
        for step in _STEPS:
            if step * power >= largest:
                return step * power
        power *= 10
