"""Rate limits per action, and a ledger of the latest requests."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

MAX_ENTRIES = 10_000


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request.

    Attributes:
        at: arrival in seconds since the epoch.
        action: the value of `X-TC-Action`.
        biz_token: from the parameters, once they are decoded; for DetectAuth the new token.
        info_type: from the parameters, once they are decoded.
        scenario: name of the step that was played.
        code: Tencent's error code if the answer was an error.
    """

    at: float
    action: str
    biz_token: str | None = None
    info_type: str | None = None
    scenario: str | None = None
    code: str | None = None


class SlidingWindow:
    """Admits at most `limit` calls within any one second; 0 means no limit.

    `peak` is the largest number of calls that arrived within one second, rejected ones included.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._arrived: deque[float] = deque()
        self._admitted: deque[float] = deque()
        self.peak = 0

    def admit(self, at: float) -> bool:
        """Counts a call and returns whether it is within the limit. A rejected call does not use up the limit."""
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
    """The latest 10,000 requests in order of arrival, and the rate limit of each action that has one."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self._windows = {action: SlidingWindow(limit) for action, limit in limits.items()}

    def open(self, *, at: float, action: str) -> Entry:
        """Adds an entry for a request that has just arrived."""
        entry = Entry(at=at, action=action)
        self.entries.append(entry)
        return entry

    def admit(self, entry: Entry) -> bool:
        """Counts the request and returns whether its action's rate limit allows it."""
        window = self._windows.get(entry.action)
        return window is None or window.admit(entry.at)

    @property
    def peaks(self) -> dict[str, int]:
        """The largest number of signed calls of each action within any one second."""
        return {action: window.peak for action, window in self._windows.items()}
