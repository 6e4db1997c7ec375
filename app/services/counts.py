"""Statistics: counts of verifications, for reports and the console."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from app.domain.api_key import Actor
from app.domain.counts import CountFilter, Dimension
from app.domain.rate import RateClass
from app.errors import InvalidRequestError
from app.services.limits import LimitService
from app.services.visibility import require_client
from app.storage.database import Database

_MOST_DAYS = 366
_MOST_COUNTS = 10_000
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Count:
    """The number of verifications with these values; only the wanted dimensions are keys."""

    values: Mapping[Dimension, Any]
    number: int


@dataclass(kw_only=True, repr=False, eq=False)
class CountService:
    """Counts for a caller, and keeps counting cheap."""

    database: Database
    limits: LimitService
    clock: Callable[[], datetime]

    async def count(self, actor: Actor, wanted: CountFilter, by: Collection[Dimension]) -> Sequence[Count]:
        """Returns the counts by these dimensions, in their order; groups without verifications are left out.

        Raises:
            ForbiddenError: the caller cannot see the wanted client's verifications.
            InvalidRequestError: the days are in the wrong order or too many, or there are too many groups.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        self.limits.admit(actor.caller, RateClass.LISTS)
        require_client(actor.caller, wanted.client)
        if not 0 <= (wanted.end - wanted.start).days < _MOST_DAYS:
            raise InvalidRequestError(f"The range must have 1 to {_MOST_DAYS} days.")
        wanted = replace(wanted, client=wanted.client or actor.caller.visible_client)
        async with self.database.read() as tx:
            found = await tx.counts.count(wanted, by, limit=_MOST_COUNTS + 1)
        if len(found) > _MOST_COUNTS:
            raise InvalidRequestError(f"There are more than {_MOST_COUNTS} groups; take fewer days or dimensions.")
        return [Count(values, number) for values, number in found]

    async def collect(self) -> None:
        """Moves the changes into the totals. A chore: counting slows down while there are many changes."""
        moved = _BATCH
        while moved == _BATCH:
            async with self.database.write() as tx:
                moved = await tx.counts.collect(limit=_BATCH)
