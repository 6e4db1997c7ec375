"""The overview: what needs attention now, the figures of today, and the results of the last 30 days."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from app.domain.api_key import Actor, Scope
from app.domain.detection import Outcome
from app.domain.listing import VerificationFilter
from app.domain.statistics import COUNT_LIMIT, Span, last_days
from app.domain.verification import Result
from app.services.health import Condition, HealthService
from app.services.read import ReadService
from app.services.visibility import require_scope
from app.storage.database import Database, Transaction

DAYS = 30
_CACHE_SECONDS = 60.0
_MAX_CACHED = 100
_FAILURES, _CODES = 1000, 5
_CALLS = 10_000
_NEWEST = 10


@dataclass(frozen=True, slots=True)
class DayCount:
    """The results that were retrieved on a day, by outcome."""

    day: date
    span: Span
    counts: Mapping[Outcome, int]

    @property
    def total(self) -> int:
        """All results of the day."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The counted figures. They may be a minute old.

    `yesterday` counts until the same time of day. `calls` are those of the last minute to Tencent, None for callers who
    see one client only.
    """

    days: Sequence[DayCount]
    yesterday: Mapping[Outcome, int]
    pending: int
    oldest_pending_at: datetime | None
    failures: Sequence[tuple[int | None, int]]
    calls: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The figures, the newest verifications, and for admins the condition of the service."""

    figures: Figures
    newest: Sequence[Result]
    condition: Condition | None


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class OverviewService:
    """Reads the overview of what a caller can see. Days are those of `zone`."""

    database: Database
    read: ReadService
    health: HealthService
    clock: Callable[[], datetime]
    zone: ZoneInfo
    _cache: dict[str | None, tuple[float, Figures]] = field(init=False, default_factory=dict)

    async def get(self, actor: Actor) -> Overview:
        """Returns the overview.

        Raises:
            ForbiddenError: the caller lacks `results:read`.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        require_scope(actor.caller, Scope.RESULTS_READ)
        newest = await self.read.list(actor, VerificationFilter(), limit=_NEWEST, cursor=None)
        condition = await self.health.measure() if actor.caller.allows(Scope.ADMIN) else None
        return Overview(
            figures=await self._figures(actor.caller.visible_client), newest=newest.results, condition=condition
        )

    async def _figures(self, client: str | None) -> Figures:
        cached = self._cache.get(client)
        if cached and time.monotonic() - cached[0] < _CACHE_SECONDS:
            return cached[1]
        async with self.database.read() as tx:
            figures = await self._count(tx, client)
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        self._cache[client] = time.monotonic(), figures
        return figures

    async def _count(self, tx: Transaction, client: str | None) -> Figures:
        now, store = self.clock(), tx.statistics
        days = last_days(now, self.zone, DAYS)
        spans = [span for _, span in days]
        yesterday = Span(spans[-2].start, now - timedelta(days=1))
        *counts, until_now = await store.count_results([*spans, yesterday], client, limit=COUNT_LIMIT)
        oldest = await store.oldest_pending(client)
        month = Span(spans[0].start, spans[-1].end)
        return Figures(
            days=[DayCount(day, span, count) for (day, span), count in zip(days, counts, strict=True)],
            yesterday=until_now,
            pending=await store.count_pending(client, limit=COUNT_LIMIT),
            oldest_pending_at=oldest.born_at if oldest else None,
            failures=await store.count_failures(month, client, limit=_FAILURES, codes=_CODES),
            calls=None if client else await store.count_calls(now - timedelta(minutes=1), limit=_CALLS),
        )
