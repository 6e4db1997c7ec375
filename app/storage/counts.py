"""Counts of verifications: changes, appended in the transaction that makes them, and totals, which collect them.

Appending never waits for another transaction. Counting up a total there would make all of them wait for one another.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import delete, func, insert, select, union_all
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.counts import CountFilter, Dimension, Group
from app.storage.column_types import IMPOSSIBLE
from app.storage.rows import RowReader
from app.storage.tables import columns_of
from app.storage.tables import count_change as changes
from app.storage.tables import count_total as totals

_NAMES = [field.name for field in fields(Group)]
_KEYS = [totals.c[name] for name in _NAMES]
_READER = RowReader(Group)
_APPEND = insert(changes)
_ADD_PG, _ADD_LITE = postgresql.insert(totals), sqlite.insert(totals)
_ADD = {
    "postgresql": _ADD_PG.on_conflict_do_update(
        index_elements=_KEYS, set_={"number": totals.c.number + _ADD_PG.excluded.number}
    ),
    "sqlite": _ADD_LITE.on_conflict_do_update(
        index_elements=_KEYS, set_={"number": totals.c.number + _ADD_LITE.excluded.number}
    ),
}


@dataclass(frozen=True, slots=True)
class CountStore:
    """The two tables of counts."""

    connection: AsyncConnection

    async def add(self, differences: Mapping[Group, int]) -> None:
        """Appends changes of the counts."""
        if differences:
            rows = [columns_of(group) | {"number": number} for group, number in differences.items()]
            await self.connection.execute(_APPEND, rows)

    async def collect(self, *, limit: int) -> int:
        """Moves at most `limit` changes into the totals; returns how many. Skips those that another one moves.

        A malformed change is removed without effect.
        """
        oldest = select(changes.c.id).order_by(changes.c.id).limit(limit).with_for_update(skip_locked=True)
        moved = (
            delete(changes)
            .where(changes.c.id.in_(oldest))
            .returning(*(changes.c[name] for name in _NAMES), changes.c.number)
        )
        rows = (await self.connection.execute(moved)).all()
        sums: Counter[Group] = Counter()
        for row in rows:
            group, is_intact = _READER.read(row[:-1])
            if is_intact and isinstance(row.number, int):
                sums[group] += row.number
        # In one order, so two collections cannot deadlock.
        new = [
            columns_of(group) | {"number": number}
            for group, number in sorted(sums.items(), key=lambda item: str(item[0]))
            if number
        ]
        if new:
            await self.connection.execute(_ADD[self.connection.dialect.name], new)
        return len(rows)

    async def count(
        self, wanted: CountFilter, by: Collection[Dimension], *, limit: int
    ) -> Sequence[tuple[Mapping[Dimension, Any], int]]:
        """Returns the wanted counts by these dimensions, in their order, without zeros; at most `limit` of them.

        Malformed groups are left out.
        """
        parts = []
        for table in (totals, changes):
            part = select(*(table.c[name] for name in by), table.c.number).where(
                table.c.day >= wanted.start, table.c.day <= wanted.end
            )
            parts.append(part if wanted.client is None else part.where(table.c.client == wanted.client))
        both = union_all(*parts).subquery()
        keys, number = [both.c[name] for name in by], func.sum(both.c.number)
        statement = select(*keys, number).group_by(*keys).having(number != 0).order_by(*keys).limit(limit)
        found = (await self.connection.execute(statement)).all()
        return [(dict(zip(by, row[:-1], strict=True)), int(row[-1] or 0)) for row in found if IMPOSSIBLE not in row]
