"""Limits per caller, counted in this process: waits that are held at the same time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import BaseModel, Field

from app.domain.api_key import Caller
from app.errors import TooManyWaitsError

# Signatures of all clients have the same id.
_CallerId = tuple[str, str]


class LimitSettings(BaseModel):
    """The limits of one process. The server accepts more connections than `waits_per_process`, for other requests."""

    waits_per_key: int = Field(default=250, ge=0)
    waits_per_process: int = Field(default=1000, ge=1, le=1500)


@dataclass(kw_only=True, repr=False, eq=False)
class LimitService:
    """Limits what each caller may do. A caller is an API key, or a client that signs."""

    settings: LimitSettings
    _waits: Counter[_CallerId] = field(init=False, default_factory=Counter)

    @contextmanager
    def waiting(self, caller: Caller) -> Iterator[None]:
        """Counts the block as one wait of the caller.

        Raises:
            TooManyWaitsError: the caller, or the process, already holds as many as it may.
        """
        known = _id(caller)
        of_key, of_process = self.settings.waits_per_key, self.settings.waits_per_process
        if of_key and self._waits[known] >= of_key:
            raise TooManyWaitsError(f"This API key has {of_key} open waits; end one, or retry later.")
        if self._waits.total() >= of_process:
            raise TooManyWaitsError("The service holds too many waits; retry later, or read without `wait`.")
        self._waits[known] += 1
        try:
            yield
        finally:
            self._waits[known] -= 1
            if not self._waits[known]:
                del self._waits[known]


def _id(caller: Caller) -> _CallerId:
    return caller.id, caller.client
