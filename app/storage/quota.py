"""The quota as a reservation (GCRA): one row per account holds the time of its next free slot.

Tencent counts arrivals in a sliding second over all programs of an account. One `UPDATE` hands out slots that lie one
interval apart, so the rate holds for any number of workers, even if some of them die.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import BigInteger, ColumnElement, Executable, bindparam, case, cast, delete, func, literal, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.tables import quota as table

MINUTE = timedelta(minutes=1)
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
        tat_us, now_us = await self._move(account, from_now_us=span_us, from_last_us=span_us, new_slots=slots)
        return time.monotonic() + (tat_us - span_us - now_us) / 1e6

    async def slow_down(self, account: str, *, pause: timedelta) -> None:
        """Skips the slots of the next `pause` for every worker, after Tencent reported an exceeded limit."""
        await self._move(account, from_now_us=pause // _MICROSECOND, from_last_us=0, new_slots=0)

    async def used(self, accounts: Collection[str]) -> Mapping[str, float]:
        """Returns how many slots of each account were reserved during the last 60 seconds.

        The row counts by whole minutes, so the slots of the minute before this one count by its share of them.
        """
        rows = await self.connection.execute(
            _USED[self.connection.dialect.name], {"accounts": list(accounts), "now_us": time.time_ns() // 1000}
        )
        found = dict.fromkeys(accounts, 0.0)
        for account, minute, slots, slots_before, now_us in rows:
            now, past = divmod(now_us, MINUTE // _MICROSECOND)
            in_this, in_last = {now: (slots, slots_before), now - 1: (0, slots)}.get(minute, (0, 0))
            found[account] = in_this + in_last * (1 - past * _MICROSECOND / MINUTE)
        return found

    async def remove(self, account: str) -> None:
        """Removes the row of something that no longer exists."""
        await self.connection.execute(delete(table).where(table.c.account == account))

    async def _move(self, account: str, *, from_now_us: int, from_last_us: int, new_slots: int) -> tuple[int, int]:
        """Moves the theoretical arrival time to the later one; returns it and the database's time in microseconds."""
        parameters = _parameters(account) | {
            "from_now_us": from_now_us,
            "from_last_us": from_last_us,
            "new_slots": new_slots,
        }
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
    minute = now_us // cast(literal(MINUTE // _MICROSECOND, BigInteger), BigInteger)
    slots = bindparam("new_slots", type_=table.c.slots.type)
    new = insert(table).values(
        account=bindparam("of_account"), tat_us=now_us + from_now_us, minute=minute, slots=slots, slots_before=0
    )
    is_same = table.c.minute == minute
    moved = new.on_conflict_do_update(
        index_elements=[table.c.account],
        set_={
            "tat_us": later(_plausible(now_us) + _bigint("from_last_us"), now_us + from_now_us),
            "minute": minute,
            "slots": case((is_same, table.c.slots + slots), else_=slots),
            "slots_before": case(
                (is_same, table.c.slots_before), (table.c.minute == minute - 1, table.c.slots), else_=0
            ),
        },
    )
    return moved.returning(table.c.tat_us, now_us)


# Built once: building a statement takes several times as long as running it.
_WAIT = {
    dialect: select(_plausible(now_us) - now_us).where(table.c.account == bindparam("of_account"))
    for dialect, now_us in _NOW_US.items()
}
_USED = {
    dialect: select(table.c.account, table.c.minute, table.c.slots, table.c.slots_before, now_us).where(
        table.c.account.in_(bindparam("accounts", expanding=True))
    )
    for dialect, now_us in _NOW_US.items()
}
_MOVE = {dialect: _move_statement(dialect) for dialect in _NOW_US}
