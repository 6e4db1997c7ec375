"""The pauses of accounts and rules, which all workers keep to."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.domain.pause import Pause
from app.storage.database import Transaction
from app.storage.tables import columns_of
from app.storage.tables import pause as table

_ALL = select(table).order_by(table.c.account, table.c.rule_id)
_OF_ONE = _ALL.where(table.c.account == bindparam("account"))  # made once: it is asked at every claim


class PauseStore:
    """The table of pauses. The caller brings the transaction."""

    async def list(self, tx: Transaction, account: str | None = None) -> Sequence[Pause]:
        """The pauses of an account, or all."""
        found = await (tx.execute(_ALL) if account is None else tx.execute(_OF_ONE, {"account": account}))
        rows = [row._asdict() for row in found]
        return [Pause(**row | {"rule_id": row["rule_id"] or None}) for row in rows]

    async def begin(self, tx: Transaction, pause: Pause) -> bool:
        """Puts the pause in force; whether there was none."""
        insert = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
        values = columns_of(pause) | {"rule_id": pause.rule_id or ""}
        statement = insert(table).values(values).on_conflict_do_nothing().returning(table.c.account)
        return (await tx.scalar(statement)) is not None

    async def take_probe(self, tx: Transaction, pause: Pause, *, next_at: datetime) -> bool:
        """Moves the next probe; whether this one was still to be made, and nobody else makes it."""
        statement = update(table).where(_is(pause), table.c.probe_at == pause.probe_at).values(probe_at=next_at)
        return (await tx.scalar(statement.returning(table.c.account))) is not None

    async def end(self, tx: Transaction, pause: Pause) -> None:
        """The operator has acted."""
        await tx.execute(delete(table).where(_is(pause)))


def _is(pause: Pause) -> ColumnElement[bool]:
    return (table.c.account == pause.account) & (table.c.rule_id == (pause.rule_id or ""))
