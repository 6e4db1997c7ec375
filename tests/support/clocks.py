"""Clocks that a test sets."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta


@dataclass
class ShiftedClock:
    """The machine's clock, moved ahead by a span that the test sets."""

    ahead: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class FixedClock:
    """A clock that changes only when the test sets it."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now
