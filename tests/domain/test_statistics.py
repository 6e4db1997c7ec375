"""Days of a time zone."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.domain.statistics import Span, day_span, last_days

BEIJING = ZoneInfo("Asia/Shanghai")


def test_day_begins_at_midnight_of_the_zone() -> None:
    assert day_span(date(2026, 11, 26), BEIJING) == Span(
        datetime(2026, 11, 25, 16, tzinfo=UTC), datetime(2026, 11, 26, 16, tzinfo=UTC)
    )


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 6, 1), 24)])
def test_day_of_a_changed_clock_has_another_length(day: date, hours: int) -> None:
    span = day_span(day, ZoneInfo("Europe/Berlin"))

    assert span.end - span.start == timedelta(hours=hours)


def test_last_days_end_today_and_follow_each_other() -> None:
    # Already the 27th in Beijing.
    days = last_days(datetime(2026, 11, 26, 17, tzinfo=UTC), BEIJING, 3)

    assert [day for day, _ in days] == [date(2026, 11, 25), date(2026, 11, 26), date(2026, 11, 27)]
    assert [span.end for _, span in days[:-1]] == [span.start for _, span in days[1:]]
