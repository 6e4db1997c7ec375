"""Who called when: the quota of each action, counted at arrival, and a ledger of the latest calls."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

LEDGER_ENTRIES = 10_000


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request. `at` is its arrival in seconds since the epoch; the rest is filled in as it becomes known.

    `code` is Tencent's error code where that was the answer, `scenario` the name of the step that was played.
    """

    at: float
    action: str
    biz_token: str | None = None
    info_type: str | None = None
    scenario: str | None = None
    code: str | None = None


class SlidingSecond:
    """Lets at most `limit` calls in within any one second, or all where it is 0.

    `peak` is the largest number of calls that ever arrived within one second, those turned away included.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._arrived: deque[float] = deque()
        self._admitted: deque[float] = deque()
        self.peak = 0

    def admit(self, at: float) -> bool:
        """Counts a call and says whether it is within the limit; one that is not takes nothing from it."""
        for times in (self._arrived, self._admitted):
            while times and times[0] <= at - 1:
                times.popleft()
        self._arrived.append(at)
        self.peak = max(self.peak, len(self._arrived))
        if 0 < self._limit <= len(self._admitted):
            return False
        self._admitted.append(at)
        return True


class Ledger:
    """The latest 10,000 requests in the order of their arrival, and the peak of each action that has a quota."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.entries: deque[Entry] = deque(maxlen=LEDGER_ENTRIES)
        self._seconds = {action: SlidingSecond(limit) for action, limit in limits.items()}

    def open(self, *, at: float, action: str) -> Entry:
        """Writes down a request that has arrived."""
        entry = Entry(at=at, action=action)
        self.entries.append(entry)
        return entry

    def admit(self, entry: Entry) -> bool:
        """Whether the quota of the entry's action has room for it; it is counted at its arrival."""
        second = self._seconds.get(entry.action)
        return second is None or second.admit(entry.at)

    @property
    def peaks(self) -> dict[str, int]:
        """The largest number of signed calls of each action within any one second."""
        return {action: second.peak for action, second in self._seconds.items()}
