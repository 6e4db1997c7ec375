"""Limits per caller, counted in this process: requests per second by class, and open waits, streams and exports."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from pydantic import BaseModel, Field, field_validator

from app.domain.api_key import OPERATOR, Caller
from app.domain.rate import Rate, RateClass, Standing
from app.errors import (
    ServiceError,
    TooManyExportsError,
    TooManyRequestsError,
    TooManyStreamsError,
    TooManyWaitsError,
)

_MAX_STATES = 10_000

# Signatures of all clients have the same id.
_CallerId = tuple[str, str]


class LimitSettings(BaseModel):
    """The limits of one process. The server accepts more connections than `waits_per_process`, for other requests."""

    rate_intake: str = Field(default="200 burst 2000", coerce_numbers_to_str=True)
    rate_retrieve: str = Field(default="10 burst 200", coerce_numbers_to_str=True)
    rate_reads: str = Field(default="500 burst 5000", coerce_numbers_to_str=True)
    rate_lists: str = Field(default="50 burst 500", coerce_numbers_to_str=True)
    rate_searches: str = Field(default="1 burst 60", coerce_numbers_to_str=True)
    rate_reveals: str = Field(default="20 burst 200", coerce_numbers_to_str=True)
    rate_media: str = Field(default="50 burst 500", coerce_numbers_to_str=True)
    rate_exports: str = Field(default="0.2 burst 20", coerce_numbers_to_str=True)
    rate_webhooks: str = Field(default="5 burst 100", coerce_numbers_to_str=True)
    rate_erasures: str = Field(default="20 burst 1000", coerce_numbers_to_str=True)
    waits_per_key: int = Field(default=250, ge=0)
    waits_per_process: int = Field(default=1000, ge=1, le=1500)
    streams_per_key: int = Field(default=8, ge=0)
    streams_per_process: int = Field(default=1500, ge=1, le=1500)
    exports_per_key: int = Field(default=2, ge=0)
    exports_per_process: int = Field(default=4, ge=1, le=100)

    @field_validator(*(f"rate_{of}" for of in RateClass))
    @classmethod
    def _is_a_rate(cls, text: str) -> str:
        Rate.parse(text)
        return text

    def rate(self, of: RateClass) -> Rate | None:
        """Returns the rate of a class; None for no limit."""
        return Rate.parse(getattr(self, f"rate_{of}"))


@dataclass(kw_only=True, repr=False, eq=False)
class LimitService:
    """Limits what each caller may do. A caller is an API key, or a client that signs.

    Services call `admit` and `waiting`, so every way into the service has the same limits. Commands have none.
    """

    settings: LimitSettings
    now_ns: Callable[[], int] = time.monotonic_ns
    _rates: dict[RateClass, Rate | None] = field(init=False)
    _full_at_ns: dict[tuple[_CallerId, RateClass], int] = field(init=False, default_factory=dict)
    _waits: "_Slots" = field(init=False)
    _streams: "_Slots" = field(init=False)
    _exports: "_Slots" = field(init=False)

    def __post_init__(self) -> None:
        limits = self.settings
        self._rates = {of: limits.rate(of) for of in RateClass}
        self._waits = _Slots("waits", TooManyWaitsError, limits.waits_per_key, limits.waits_per_process)
        self._streams = _Slots("streams", TooManyStreamsError, limits.streams_per_key, limits.streams_per_process)
        self._exports = _Slots("exports", TooManyExportsError, limits.exports_per_key, limits.exports_per_process)

    def admit(self, caller: Caller, of: RateClass) -> None:
        """Counts a request of the caller.

        Raises:
            TooManyRequestsError: the caller has exceeded the rate of the class.
        """
        rate = self._rates[of]
        if rate is None or caller is OPERATOR:
            return
        known, now = (_id(caller), of), self.now_ns()
        full_at = self._full_at_ns.get(known, now)
        taken = rate.take(full_at, now)
        if taken is None:
            seconds = rate.standing(full_at, now).next_seconds
            raise TooManyRequestsError(f"Rate limit of {of} exceeded; retry after {seconds} s.", retry_after=seconds)
        if len(self._full_at_ns) >= _MAX_STATES:
            self._forget(now)
        self._full_at_ns[known] = taken

    def standing(self, caller: Caller, of: RateClass) -> tuple[Rate, Standing] | None:
        """Returns the rate of a class and what the caller may still do; None without a limit."""
        rate = self._rates[of]
        if rate is None or caller is OPERATOR:
            return None
        now = self.now_ns()
        return rate, rate.standing(self._full_at_ns.get((_id(caller), of), now), now)

    @property
    def callers(self) -> int:
        """The number of callers and classes that are remembered."""
        return len(self._full_at_ns)

    def waiting(self, caller: Caller) -> AbstractContextManager[None]:
        """Counts the block as one wait of the caller.

        Raises:
            TooManyWaitsError: the caller, or the process, already holds as many as it may.
        """
        return self._waits.hold(caller)

    def streaming(self, caller: Caller) -> AbstractContextManager[None]:
        """Counts the block as one stream of the caller.

        Raises:
            TooManyStreamsError: the caller, or the process, already has as many as it may.
        """
        return self._streams.hold(caller)

    def exporting(self, caller: Caller) -> AbstractContextManager[None]:
        """Counts the block as one export of the caller.

        Raises:
            TooManyExportsError: the caller, or the process, already runs as many as it may.
        """
        return self._exports.hold(caller)

    def _forget(self, now_ns: int) -> None:
        """Removes the callers that have their whole burst again, or else the half that has it first."""
        states = sorted(self._full_at_ns.items(), key=lambda state: state[1])
        kept = [state for state in states if state[1] > now_ns]
        self._full_at_ns = dict(kept[-_MAX_STATES // 2 :])


class _Slots:
    """Requests that are held open, limited per caller and in this process. 0 is no limit per caller."""

    def __init__(self, what: str, refusal: Callable[[str], ServiceError], per_caller: int, per_process: int) -> None:
        self._what = what
        self._refusal = refusal
        self._per_caller = per_caller
        self._per_process = per_process
        self._held: Counter[_CallerId] = Counter()

    @contextmanager
    def hold(self, caller: Caller) -> Iterator[None]:
        """Holds one slot during the block, or raises the refusal."""
        known = _id(caller)
        if self._per_caller and self._held[known] >= self._per_caller:
            raise self._refusal(f"This API key has {self._per_caller} open {self._what}; end one, or retry later.")
        if self._held.total() >= self._per_process:
            raise self._refusal(f"The service holds too many {self._what}; retry later.")
        self._held[known] += 1
        try:
            yield
        finally:
            self._held[known] -= 1
            if not self._held[known]:
                del self._held[known]


def _id(caller: Caller) -> _CallerId:
    return caller.id, caller.client
