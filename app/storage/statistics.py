"""Counts for the overview. Each scans an index and stops at a limit, so a large table cannot delay them for long."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.detection import Outcome
from app.domain.statistics import Span
from app.domain.verification import State, Verification
from app.storage.column_types import NO_OUTCOME
from app.storage.tables import detection, upstream_call
from app.storage.tables import verification as table
from app.storage.verifications import COLUMNS, as_verification


@dataclass(frozen=True, slots=True)
class StatisticsStore:
    """Counts of verifications; `client` None counts those of all clients."""

    connection: AsyncConnection

    async def count_results(
        self, spans: Sequence[Span], client: str | None, *, limit: int
    ) -> Sequence[Mapping[Outcome, int]]:
        """Counts the results that were retrieved in each span, by outcome, up to `limit` for each."""
        counts = [
            select(func.count())
            .select_from(
                select(literal(1))
                .where(_standing(client, State.RETRIEVED, outcome))
                .where(table.c.retrieved_at >= span.start, table.c.retrieved_at < span.end)
                .limit(limit)
                .subquery()
            )
            .scalar_subquery()
            for span in spans
            for outcome in Outcome
        ]
        row = (await self.connection.execute(select(*counts))).one()
        width = len(Outcome)
        return [dict(zip(Outcome, row[start : start + width], strict=True)) for start in range(0, len(row), width)]

    async def count_pending(self, client: str | None, *, limit: int) -> int:
        """Counts the pending verifications, up to `limit`."""
        pending = select(literal(1)).where(_standing(client, State.PENDING, None)).limit(limit).subquery()
        return (await self.connection.execute(select(func.count()).select_from(pending))).scalar_one()

    async def oldest_pending(self, client: str | None) -> Verification | None:
        """Returns the pending verification that was accepted first."""
        oldest = select(*COLUMNS).where(_standing(client, State.PENDING, None)).order_by(table.c.id).limit(1)
        row = (await self.connection.execute(oldest)).one_or_none()
        return as_verification(row) if row else None

    async def count_failures(
        self, span: Span, client: str | None, *, limit: int, codes: int
    ) -> Sequence[tuple[int | None, int]]:
        """Returns the most frequent result codes of the newest `limit` failed results, with their counts."""
        newest = (
            select(table.c.id)
            .where(_standing(client, State.RETRIEVED, Outcome.FAILED))
            .where(table.c.retrieved_at >= span.start, table.c.retrieved_at < span.end)
            .order_by(table.c.retrieved_at.desc())
            .limit(limit)
            .subquery()
        )
        count = func.count().label("number")
        counted = (
            select(detection.c.err_code, count)
            .join(newest, newest.c.id == detection.c.verification_id)
            .group_by(detection.c.err_code)
            .order_by(count.desc(), detection.c.err_code)
            .limit(codes)
        )
        found = await self.connection.execute(counted)
        # SQLite also stores texts.
        return [(row.err_code, row.number) for row in found if row.err_code is None or isinstance(row.err_code, int)]

    async def count_calls(self, since: datetime, *, limit: int) -> int:
        """Counts the newest calls to Tencent since an instant, up to `limit`."""
        newest = select(upstream_call.c.called_at).order_by(upstream_call.c.id.desc()).limit(limit).subquery()
        counted = select(func.count()).select_from(newest).where(newest.c.called_at >= since)
        return (await self.connection.execute(counted)).scalar_one()


def _standing(client: str | None, state: State, outcome: Outcome | None) -> ColumnElement[bool]:
    is_own = [table.c.client == client] if client is not None else []
    return and_(*is_own, table.c.state == state, table.c.outcome == (outcome or NO_OUTCOME))
