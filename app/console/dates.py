"""Days in the filters of lists, and instants in forms."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

# The instants of a day must exist in every time zone.
_FIRST, _LAST = (datetime(year, month, day, tzinfo=UTC).date() for year, month, day in ((2000, 1, 2), (9999, 12, 29)))


def parse_day(text: str) -> date | None:
    """Returns a day like 2026-11-26; None for anything else."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if _FIRST <= day <= _LAST else None


def parse_moment(text: str, zone: ZoneInfo) -> datetime | None:
    """Returns an instant like 2026-11-26T08:30 of a time zone in UTC; None for anything else."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    is_known = moment.tzinfo is None and _FIRST <= moment.date() <= _LAST
    return moment.replace(tzinfo=zone).astimezone(UTC) if is_known else None
