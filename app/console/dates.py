"""Days in the filters of lists."""

from datetime import UTC, date, datetime

# The instants of a day must exist in every time zone.
_FIRST, _LAST = (datetime(year, month, day, tzinfo=UTC).date() for year, month, day in ((2000, 1, 2), (9999, 12, 29)))


def parse_day(text: str) -> date | None:
    """Returns a day like 2026-11-26; None for anything else."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if _FIRST <= day <= _LAST else None
