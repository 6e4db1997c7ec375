"""Days of a time zone, for which results are counted, and the limit of counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

COUNT_LIMIT = 100_000
"""No count of rows is larger. A count of this size means that there may be more."""


@dataclass(frozen=True, slots=True)
class Span:
    """The time from `start` up to but not including `end`."""

    start: datetime
    end: datetime


def day_span(day: date, zone: ZoneInfo) -> Span:
    """Returns the span of a day. It may have 23 or 25 hours."""
    start, end = (datetime.combine(each, time(), zone).astimezone(UTC) for each in (day, day + timedelta(days=1)))
    return Span(start, end)


def last_days(now: datetime, zone: ZoneInfo, count: int) -> Sequence[tuple[date, Span]]:
    """Returns the last days including today, oldest first."""
    today = now.astimezone(zone).date()
    days = [today - timedelta(days=back) for back in reversed(range(count))]
    return [(day, day_span(day, zone)) for day in days]
