"""The quota as a reservation (GCRA): one row per account says when its next call may be made.

Tencent counts arrivals in a sliding second over all programs of an account. Slots that lie one interval apart, handed
out by one `UPDATE`, hold the rate however many workers ask and whichever of them die.
"""

import time
from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import BigInteger, ColumnElement, Executable, bindparam, case, cast, func, literal, select, text
from sqlalchemy.dialects import postgresql, sqlite

from app.storage.database import Transaction
from app.storage.tables import quota as table

_MICROSECOND = timedelta(microseconds=1)
_MOST_AHEAD = timedelta(minutes=2)  # nothing honest lies further ahead: the clock was set back, and nobody shall wait


class QuotaStore:
    """Slots of accounts. The caller brings the transaction, the database its clock: workers' clocks differ."""

    async def wait(self, tx: Transaction, account: str) -> timedelta:
        """How long it is till the next slot that nobody has, as far as can be told without reserving it."""
        wait_us = await tx.scalar(_WAIT[tx.dialect.name], _parameters(account))
        return max((wait_us or 0) * _MICROSECOND, timedelta())

    async def reserve(self, tx: Transaction, account: str, *, interval: timedelta, slots: int) -> float:
        """Reserves `slots` slots that lie `interval` apart; answers when the first of them is, by `time.monotonic`."""
        span_us = slots * (interval // _MICROSECOND)
        tat_us, now_us = await _move(tx, account, from_now_us=span_us, from_last_us=span_us)
        return time.monotonic() + (tat_us - span_us - now_us) / 1e6

    async def slow_down(self, tx: Transaction, account: str, *, pause: timedelta) -> None:
        """Leaves out the slots of the next `pause`, for every worker: Tencent said that it was too much."""
        await _move(tx, account, from_now_us=pause // _MICROSECOND, from_last_us=0)


async def _move(tx: Transaction, account: str, *, from_now_us: int, from_last_us: int) -> tuple[int, int]:
    """Moves the theoretical arrival time to the later of the two; answers it and the database's time, in us."""
    parameters = _parameters(account) | {"from_now_us": from_now_us, "from_last_us": from_last_us}
    row = (await tx.execute(_MOVE[tx.dialect.name], parameters)).one()
    return row[0], row[1]


def _parameters(account: str) -> dict[str, str | int]:
    # For SQLite, which runs on the worker's own machine and tells the time in milliseconds only.
    return {"of_account": account, "now_us": time.time_ns() // 1000}


def _bigint(name: str) -> ColumnElement[int]:
    return cast(bindparam(name, type_=BigInteger), BigInteger)


# Not `now()`, which stands still within a transaction. Cast, because asyncpg truncates a float for a bigint in silence.
_NOW_US: Mapping[str, ColumnElement[int]] = {
    "postgresql": cast(text("extract(epoch from clock_timestamp()) * 1000000"), BigInteger),
    "sqlite": _bigint("now_us"),
}


def _honest(now_us: ColumnElement[int]) -> ColumnElement[int]:
    """The theoretical arrival time, or now where it cannot be true."""
    is_true = table.c.tat_us - now_us <= cast(literal(_MOST_AHEAD // _MICROSECOND, BigInteger), BigInteger)
    return case((is_true, table.c.tat_us), else_=now_us)


def _move_statement(dialect: str) -> Executable:
    now_us, from_now_us = _NOW_US[dialect], _bigint("from_now_us")
    insert, later = (postgresql.insert, func.greatest) if dialect == "postgresql" else (sqlite.insert, func.max)
    new = insert(table).values(account=bindparam("of_account"), tat_us=now_us + from_now_us)
    moved = new.on_conflict_do_update(
        index_elements=[table.c.account],
        set_={"tat_us": later(_honest(now_us) + _bigint("from_last_us"), now_us + from_now_us)},
    )
    return moved.returning(table.c.tat_us, now_us)


# Made once: to put a statement together takes several times as long as to run it.
_WAIT = {
    dialect: select(_honest(now_us) - now_us).where(table.c.account == bindparam("of_account"))
    for dialect, now_us in _NOW_US.items()
}
_MOVE = {dialect: _move_statement(dialect) for dialect in _NOW_US}
