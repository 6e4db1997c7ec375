"""The pauses of accounts and rules, which all workers respect."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime

from sqlalchemy import ColumnElement, bindparam, delete, select, true, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.pause import Pause
from app.domain.verification import LONG_AGO
from app.storage.rows import RowReader
from app.storage.tables import columns_of
from app.storage.tables import pause as table

_READER = RowReader(Pause, account="", error_code="", paused_at=LONG_AGO, probe_at=LONG_AGO)
_ALL = select(*(table.c[field.name] for field in fields(Pause))).order_by(table.c.account, table.c.rule_id)
# Compiled once because every claim runs it.
_OF_ACCOUNT = _ALL.where(table.c.account == bindparam("account"))


@dataclass(frozen=True, slots=True)
class PauseStore:
    """The table of pauses."""

    connection: AsyncConnection

    async def list(self, account: str | None = None) -> Sequence[Pause]:
        """Returns the pauses of an account, or all pauses."""
        execute = self.connection.execute
        found = await (execute(_ALL) if account is None else execute(_OF_ACCOUNT, {"account": account}))
        pauses = [_READER.read(row)[0] for row in found]
        return [replace(pause, rule_id=pause.rule_id or None) for pause in pauses]

    async def begin(self, pause: Pause) -> bool:
        """Inserts a pause; returns whether it is new."""
        insert = postgresql.insert if self.connection.dialect.name == "postgresql" else sqlite.insert
        values = columns_of(pause) | {"rule_id": pause.rule_id or ""}
        statement = insert(table).values(values).on_conflict_do_nothing().returning(table.c.account)
        return (await self.connection.scalar(statement)) is not None

    async def take_probe(self, pause: Pause, *, next_at: datetime) -> bool:
        """Schedules the next probe; returns False if another worker already took the current one."""
        # A malformed time reads as long ago, and equals nothing.
        is_current = (table.c.probe_at == pause.probe_at) if pause.probe_at != LONG_AGO else true()
        statement = update(table).where(_is(pause), is_current).values(probe_at=next_at)
        return (await self.connection.scalar(statement.returning(table.c.account))) is not None

    async def end(self, pause: Pause) -> None:
        """Deletes a pause."""
        await self.connection.execute(delete(table).where(_is(pause)))


def _is(pause: Pause) -> ColumnElement[bool]:
    return (table.c.account == pause.account) & (table.c.rule_id == (pause.rule_id or ""))
