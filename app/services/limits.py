"""Limits per caller, counted in this process: requests per second by class, and waits and streams that are open."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import BaseModel, Field, field_validator

from app.domain.api_key import OPERATOR, Caller
from app.domain.rate import Rate, RateClass, Standing
from app.errors import TooManyRequestsError, TooManyStreamsError, TooManyWaitsError

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
    rate_webhooks: str = Field(default="5 burst 100", coerce_numbers_to_str=True)
    rate_erasures: str = Field(default="20 burst 1000", coerce_numbers_to_str=True)
    waits_per_key: int = Field(default=250, ge=0)
    waits_per_process: int = Field(default=1000, ge=1, le=1500)
    streams_per_key: int = Field(default=8, ge=0)
    streams_per_process: int = Field(default=1500, ge=1, le=1500)

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
    _waits: Counter[_CallerId] = field(init=False, default_factory=Counter)
    _streams: Counter[_CallerId] = field(init=False, default_factory=Counter)

    def __post_init__(self) -> None:
        self._rates = {of: self.settings.rate(of) for of in RateClass}

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

    @contextmanager
    def waiting(self, caller: Caller) -> Iterator[None]:
        """Counts the block as one wait of the caller.

        Raises:
            TooManyWaitsError: the caller, or the process, already holds as many as it may.
        """
        of_key = self.settings.waits_per_key
        if of_key and self._waits[_id(caller)] >= of_key:
            raise TooManyWaitsError(f"This API key has {of_key} open waits; end one, or retry later.")
        if self._waits.total() >= self.settings.waits_per_process:
            raise TooManyWaitsError("The service holds too many waits; retry later, or read without `wait`.")
        with _counted(self._waits, _id(caller)):
            yield

    @contextmanager
    def streaming(self, caller: Caller) -> Iterator[None]:
        """Counts the block as one stream of the caller.

        Raises:
            TooManyStreamsError: the caller, or the process, already has as many as it may.
        """
        of_key = self.settings.streams_per_key
        if of_key and self._streams[_id(caller)] >= of_key:
            raise TooManyStreamsError(f"This API key has {of_key} open streams; end one, or retry later.")
        if self._streams.total() >= self.settings.streams_per_process:
            raise TooManyStreamsError("The service has too many streams; retry later.")
        with _counted(self._streams, _id(caller)):
            yield

    def _forget(self, now_ns: int) -> None:
        """Removes the callers that have their whole burst again, or else the half that has it first."""
        states = sorted(self._full_at_ns.items(), key=lambda state: state[1])
        kept = [state for state in states if state[1] > now_ns]
        self._full_at_ns = dict(kept[-_MAX_STATES // 2 :])


@contextmanager
def _counted(counter: Counter[_CallerId], known: _CallerId) -> Iterator[None]:
    counter[known] += 1
    try:
        yield
    finally:
        counter[known] -= 1
        if not counter[known]:
            del counter[known]


def _id(caller: Caller) -> _CallerId:
    return caller.id, caller.client
