"""Rates of requests: the classes that are limited, and the decision after GCRA."""

import math
import re
from dataclasses import dataclass
from enum import StrEnum

_SECOND_NS = 1_000_000_000
_TEXT = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)(?: burst (\d{1,6}))?")
# Of the rate, if the text does not name a burst.
_BURST_SECONDS = 10


class RateClass(StrEnum):
    """The classes of requests with a rate of their own."""

    INTAKE = "intake"
    RETRIEVE = "retrieve"
    READS = "reads"
    LISTS = "lists"
    SEARCHES = "searches"
    REVEALS = "reveals"
    MEDIA = "media"
    WEBHOOKS = "webhooks"
    ERASURES = "erasures"
    EXPORTS = "exports"


@dataclass(frozen=True, slots=True)
class Standing:
    """The requests that are possible at once, and the seconds until the next one and until the whole burst is."""

    remaining: int
    next_seconds: int
    full_seconds: int


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests at once, then one per `interval_ns`.

    The state of a caller is one number: the time when the whole burst is available again.
    """

    interval_ns: int
    burst: int

    @classmethod
    def parse(cls, text: str) -> "Rate | None":
        """Returns the rate of a text such as `200 burst 2000` or `0.5`, in requests per second; None if it is 0.

        Raises:
            ValueError: the text is malformed.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError("it must be requests per second with a burst, like `50 burst 500`, or 0 for no limit")
        per_second = float(match[1])
        if not per_second:
            return None
        burst = int(match[2]) if match[2] else math.ceil(per_second * _BURST_SECONDS)
        if not burst:
            raise ValueError("the burst must be at least 1")
        return cls(round(_SECOND_NS / per_second), burst)

    @property
    def window_seconds(self) -> int:
        """The seconds until a spent burst is available again."""
        return _seconds(self.burst * self.interval_ns)

    def take(self, full_at_ns: int, now_ns: int) -> int | None:
        """Returns the new state after one more request; None if it must be refused."""
        taken = max(full_at_ns, now_ns) + self.interval_ns
        return taken if taken - now_ns <= self.burst * self.interval_ns else None

    def standing(self, full_at_ns: int, now_ns: int) -> Standing:
        """Returns what a caller in this state may do now."""
        owed = max(full_at_ns - now_ns, 0)
        room = self.burst * self.interval_ns - owed
        return Standing(room // self.interval_ns, _seconds(max(self.interval_ns - room, 0)), _seconds(owed))


def _seconds(span_ns: int) -> int:
    return -(-span_ns // _SECOND_NS)
