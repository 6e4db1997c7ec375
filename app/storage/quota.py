"""The quota as a reservation (GCRA): one row per account holds the time of its next free slot.

Tencent counts arrivals in a sliding second over all programs of an account. One `UPDATE` hands out slots that lie one
interval apart, so the rate holds for any number of workers, even if some of them die.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import BigInteger, ColumnElement, Executable, bindparam, case, cast, delete, func, literal, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.tables import quota as table

_MICROSECOND = timedelta(microseconds=1)
# A slot further ahead can only come from a clock that was set back since; it is ignored, and no caller waits for it.
_MAX_AHEAD = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class QuotaStore:
    """The slots of accounts, and of anything else with a rate. Uses the database's clock because workers' differ."""

    connection: AsyncConnection

    async def wait(self, account: str) -> timedelta:
        """Returns the time until the next free slot, without reserving it."""
        wait_us = await self.connection.scalar(_WAIT[self.connection.dialect.name], _parameters(account))
        return max((wait_us or 0) * _MICROSECOND, timedelta())

    async def reserve(self, account: str, *, interval: timedelta, slots: int) -> float:
        """Reserves `slots` slots, one `interval` apart; returns the time of the first one by `time.monotonic`."""
        span_us = slots * (interval // _MICROSECOND)
        tat_us, now_us = await self._move(account, from_now_us=span_us, from_last_us=span_us)
        return time.monotonic() + (tat_us - span_us - now_us) / 1e6

    async def slow_down(self, account: str, *, pause: timedelta) -> None:
        """Skips the slots of the next `pause` for every worker, after Tencent reported an exceeded limit."""
        await self._move(account, from_now_us=pause // _MICROSECOND, from_last_us=0)

    async def remove(self, account: str) -> None:
        """Removes the row of something that no longer exists."""
        await self.connection.execute(delete(table).where(table.c.account == account))

    async def _move(self, account: str, *, from_now_us: int, from_last_us: int) -> tuple[int, int]:
        """Moves the theoretical arrival time to the later one; returns it and the database's time in microseconds."""
        parameters = _parameters(account) | {"from_now_us": from_now_us, "from_last_us": from_last_us}
        row = (await self.connection.execute(_MOVE[self.connection.dialect.name], parameters)).one()
        return row[0], row[1]


def _parameters(account: str) -> dict[str, str | int]:
    # SQLite runs on the worker's own machine, and its own clock has milliseconds only.
    return {"of_account": account, "now_us": time.time_ns() // 1000}


def _bigint(name: str) -> ColumnElement[int]:
    return cast(bindparam(name, type_=BigInteger), BigInteger)


# Not `now()`, which stands still within a transaction. Cast because asyncpg silently truncates a float for a bigint.
_NOW_US: Mapping[str, ColumnElement[int]] = {
    "postgresql": cast(text("extract(epoch from clock_timestamp()) * 1000000"), BigInteger),
    "sqlite": _bigint("now_us"),
}


def _plausible(now_us: ColumnElement[int]) -> ColumnElement[int]:
    """Returns the stored arrival time, or now if the stored one lies too far ahead."""
    is_plausible = table.c.tat_us - now_us <= cast(literal(_MAX_AHEAD // _MICROSECOND, BigInteger), BigInteger)
    return case((is_plausible, table.c.tat_us), else_=now_us)


def _move_statement(dialect: str) -> Executable:
    now_us, from_now_us = _NOW_US[dialect], _bigint("from_now_us")
    insert, later = (postgresql.insert, func.greatest) if dialect == "postgresql" else (sqlite.insert, func.max)
    new = insert(table).values(account=bindparam("of_account"), tat_us=now_us + from_now_us)
    moved = new.on_conflict_do_update(
        index_elements=[table.c.account],
        set_={"tat_us": later(_plausible(now_us) + _bigint("from_last_us"), now_us + from_now_us)},
    )
    return moved.returning(table.c.tat_us, now_us)


# Built once: building a statement takes several times as long as running it.
_WAIT = {
    dialect: select(_plausible(now_us) - now_us).where(table.c.account == bindparam("of_account"))
    for dialect, now_us in _NOW_US.items()
}
_MOVE = {dialect: _move_statement(dialect) for dialect in _NOW_US}
