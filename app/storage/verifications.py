"""The rows of verifications: found, locked, listed, and written as `app.domain.lifecycle` says."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.domain.detection import Outcome
from app.domain.verification import Filter, Place, Priority, State, Verification
from app.storage.database import Transaction
from app.storage.lists import Index, page_of
from app.storage.tables import columns_of
from app.storage.tables import verification as table

_COLUMNS = [table.c[field.name] for field in fields(Verification)]
# Made once: to put a statement together takes several times as long as to run it.
_FIND = select(*_COLUMNS).where(table.c.biz_token == bindparam("biz_token"))
_FIND_ALL = select(*_COLUMNS).where(table.c.biz_token.in_(bindparam("biz_tokens", expanding=True)))
_LOCK = _FIND.with_for_update()
_LOCK_ALL = (
    select(*_COLUMNS).where(table.c.id.in_(bindparam("ids", expanding=True))).order_by(table.c.id).with_for_update()
)
_LOCK_ALL_OF = _FIND_ALL.order_by(table.c.id).with_for_update()
_ADD = {
    name: dialect.insert(table).on_conflict_do_nothing().returning(table.c.id, table.c.biz_token)
    for name, dialect in (("postgresql", postgresql), ("sqlite", sqlite))
}
_SAVE = update(table).where(table.c.id == bindparam("row_id"))


class VerificationStore:
    """The table of verifications. The caller brings the transaction."""

    async def add(self, tx: Transaction, verification: Verification) -> Verification | None:
        """Inserts a new row; None if its token or nonce is already there, whoever inserted it just now included."""
        return (await self.add_all(tx, [verification])).get(verification.biz_token)

    async def add_all(self, tx: Transaction, verifications: Collection[Verification]) -> Mapping[str, Verification]:
        """The same of many, none of a token twice; answers those that are new, by token.

        In the order of their tokens, so that two who add the same ones do not wait for each other.
        """
        new = {one.biz_token: one for one in sorted(verifications, key=lambda one: one.biz_token)}
        rows = [columns_of(one) for one in new.values()]
        for row in rows:
            del row["id"]
        added = (await tx.execute(_ADD[tx.dialect.name], rows)).all() if rows else []
        return {row.biz_token: replace(new[row.biz_token], id=row.id) for row in added}

    async def find(self, tx: Transaction, biz_token: str) -> Verification | None:
        """The row of a token."""
        row = (await tx.execute(_FIND, {"biz_token": biz_token})).one_or_none()
        return as_verification(row) if row else None

    async def find_all(self, tx: Transaction, biz_tokens: Collection[str]) -> Sequence[Verification]:
        """The rows of those tokens that are known, in no order."""
        return [as_verification(row) for row in await tx.execute(_FIND_ALL, {"biz_tokens": list(biz_tokens)})]

    async def lock(self, tx: Transaction, biz_token: str) -> Verification | None:
        """The row of a token, which nobody else changes until the transaction is over."""
        row = (await tx.execute(_LOCK, {"biz_token": biz_token})).one_or_none()
        return as_verification(row) if row else None

    async def lock_all(self, tx: Transaction, ids: Collection[int]) -> Sequence[Verification]:
        """The same of many rows, in the one order in which nobody waits for another who waits for them."""
        return [as_verification(row) for row in await tx.execute(_LOCK_ALL, {"ids": list(ids)})]

    async def lock_all_of(self, tx: Transaction, biz_tokens: Collection[str]) -> Sequence[Verification]:
        """The same by their tokens; those that are known."""
        return [as_verification(row) for row in await tx.execute(_LOCK_ALL_OF, {"biz_tokens": list(biz_tokens)})]

    async def save(self, tx: Transaction, before: Verification, after: Verification) -> None:
        """Writes what differs between the locked row and what became of it."""
        await self.save_all(tx, [(before, after)])

    async def save_all(self, tx: Transaction, changed: Collection[tuple[Verification, Verification]]) -> None:
        """The same of many rows: those in which the same columns differ at once."""
        alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for before, after in changed:
            old, new = columns_of(before), columns_of(after)
            changes = {name: value for name, value in new.items() if value != old[name]}
            alike.setdefault(tuple(changes), []).append({"row_id": before.id} | changes)
        for names, rows in alike.items():
            if names:
                await tx.execute(_SAVE, rows)

    async def lock_due_for_erasure(self, tx: Transaction, now: datetime, *, limit: int) -> Sequence[Verification]:
        """What has something to erase, the longest overdue first; what another process is at is left to it."""
        due = select(*_COLUMNS).where(table.c.erase_at <= now).order_by(table.c.erase_at).limit(limit)
        return [as_verification(row) for row in await tx.execute(due.with_for_update(skip_locked=True))]

    async def newest_sealed(self, tx: Transaction) -> Verification | None:
        """The newest row that is sealed at all."""
        statement = select(*_COLUMNS).where(table.c.sealed_key.is_not(None)).order_by(table.c.id.desc()).limit(1)
        row = (await tx.execute(statement)).one_or_none()
        return as_verification(row) if row else None

    async def count_pending(self, tx: Transaction, *, deadline_before: datetime) -> int:
        """How many are not retrieved completely and cannot be from then on."""
        is_open = (table.c.state == State.PENDING) | (table.c.pulled != "")
        statement = select(func.count()).where(is_open, table.c.deadline_at < deadline_before)
        return (await tx.execute(statement)).scalar_one()

    async def search(
        self,
        tx: Transaction,
        wanted: Filter,
        *,
        limit: int,
        before: Place | None,
        index: Index | None = None,
    ) -> Sequence[Verification]:
        """The newest first: at most `limit` rows, all behind a place; one person's by an index of the texts."""
        statement, parameters = page_of(wanted, limit=limit, before=before, index=index)
        return [as_verification(row) for row in await tx.execute(statement, parameters)]


def as_verification(row: Row[Any]) -> Verification:
    """A row of the table as a value."""
    values = row._asdict()
    values["state"], values["priority"] = State(values["state"]), Priority(values["priority"])
    values["outcome"] = values["outcome"] and Outcome(values["outcome"])
    return Verification(**values)
