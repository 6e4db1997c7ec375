"""The rows of verifications: found, locked, listed, and saved as `app.domain.lifecycle` returns them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Executable, bindparam, func, select, text, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.counts import differences
from app.domain.events import EventType, change_of, describe
from app.domain.lifecycle import touched
from app.domain.listing import Position, VerificationFilter
from app.domain.verification import MALFORMED, NEVER, State, TokenOwner, Verification
from app.storage.counts import CountStore
from app.storage.events import EventStore
from app.storage.listing import PersonIndex, page_statement
from app.storage.rows import RowReader
from app.storage.tables import IS_OPEN, columns_of
from app.storage.tables import verification as table

COLUMNS = [table.c[field.name] for field in fields(Verification)]
"""The columns in the order that `as_verification` expects."""

_READER = RowReader(Verification, client="", biz_token="", rule_id="", deadline_at=NEVER)

# Built once: building a statement takes several times as long as running it.
_FIND = select(*COLUMNS).where(table.c.biz_token.in_(bindparam("biz_tokens", expanding=True)))
_LOCK = _FIND.where(table.c.client.in_(bindparam("clients", expanding=True))).order_by(table.c.id).with_for_update()
_FIND_BY_ID = select(*COLUMNS).where(table.c.id.in_(bindparam("ids", expanding=True)))
_LOCK_BY_ID = _FIND_BY_ID.order_by(table.c.id).with_for_update()
_ADD = {
    name: dialect.insert(table).on_conflict_do_nothing().returning(table.c.id, table.c.client, table.c.biz_token)
    for name, dialect in (("postgresql", postgresql), ("sqlite", sqlite))
}
_SAVE = update(table).where(table.c.id == bindparam("row_id"))
_IS_OPEN = text(f"({IS_OPEN})")


@dataclass(frozen=True, slots=True)
class VerificationStore:
    """The table of verifications. Each change of a row adds its event, if it is one, and counts for the statistics."""

    connection: AsyncConnection
    events: EventStore
    counts: CountStore

    async def add_all(self, verifications: Collection[Verification]) -> Mapping[TokenOwner, Verification]:
        """Inserts rows with different owners; returns those that are new, by client and token, with their ids.

        A row whose owner or nonce exists is skipped, even if another transaction inserted it a moment ago. The rows are
        inserted in the order of their tokens, so two transactions with the same ones cannot deadlock.
        """
        by_token = sorted(verifications, key=lambda one: (one.biz_token, one.client))
        new = {one.owner: one for one in by_token}
        rows = [columns_of(one) for one in new.values()]
        for row in rows:
            del row["id"]
        added = (await self.connection.execute(_ADD[self.connection.dialect.name], rows)).all() if rows else []
        found = {(row.client, row.biz_token): replace(new[row.client, row.biz_token], id=row.id) for row in added}
        await self.counts.add(differences((None, one) for one in found.values()))
        return found

    async def find_all(self, biz_tokens: Collection[str]) -> Sequence[Verification]:
        """Returns the rows of the known tokens, of all clients and in no order."""
        return await self._select(_FIND, biz_tokens=list(biz_tokens))

    async def lock_all(self, owners: Collection[TokenOwner]) -> Mapping[TokenOwner, Verification]:
        """Locks the rows of clients and tokens, and returns those that exist.

        They are locked in the order of their ids, which prevents deadlocks. No other transaction changes them until
        this one ends.
        """
        clients, biz_tokens = ({owner[place] for owner in owners} for place in (0, 1))
        rows = await self._select(_LOCK, clients=list(clients), biz_tokens=list(biz_tokens))
        return {row.owner: row for row in rows if row.owner in owners}

    async def list_by_id(self, ids: Collection[int]) -> Sequence[Verification]:
        """Returns the rows with these ids, in no order."""
        return await self._select(_FIND_BY_ID, ids=list(ids))

    async def lock_by_id(self, ids: Collection[int]) -> Sequence[Verification]:
        """Locks and returns the rows, in the order of their ids."""
        return await self._select(_LOCK_BY_ID, ids=list(ids))

    async def lock_due_for_erasure(self, now: datetime, *, limit: int) -> Sequence[Verification]:
        """Locks and returns rows with something to erase, the longest overdue first; skips locked rows."""
        due = select(*COLUMNS).where(table.c.erase_at <= now).order_by(table.c.erase_at).limit(limit)
        return await self._select(due.with_for_update(skip_locked=True))

    async def lock_rejected(
        self, error_code: str, rules: Collection[tuple[str, str]], *, deadline_before: datetime, limit: int
    ) -> Sequence[Verification]:
        """Locks and returns pending rows that end before a deadline and that Tencent rejects; skips leased rows.

        Args:
            error_code: the code of their last call.
            rules: pairs of account and rule that Tencent rejects with this code, so their rows need no call.
            deadline_before: the end of the range of their deadlines.
            limit: the maximum number of rows.
        """
        is_rejected = table.c.last_error_code == error_code
        if rules:
            is_rejected |= tuple_(table.c.account, table.c.rule_id).in_(rules)
        rejected = (
            select(*COLUMNS)
            .where(table.c.state == State.PENDING, table.c.deadline_at < deadline_before, is_rejected)
            .where(table.c.due_at.is_not(None), table.c.is_leased.is_(False))
            .order_by(table.c.id)
            .limit(limit)
        )
        return await self._select(rejected.with_for_update(skip_locked=True))

    async def lock_expiring(self, *, deadline_before: datetime, limit: int) -> Sequence[Verification]:
        """Locks and returns pending rows whose deadline was not announced, the earliest first; skips locked rows."""
        expiring = (
            select(*COLUMNS)
            .where(table.c.state == State.PENDING, table.c.deadline_at < deadline_before)
            .where(table.c.is_expiry_announced.is_(False))
            .order_by(table.c.deadline_at)
            .limit(limit)
        )
        return await self._select(expiring.with_for_update(skip_locked=True))

    async def has_any(self) -> bool:
        """Returns whether there is any row, even of an erased verification."""
        return (await self.connection.scalar(select(table.c.id).limit(1))) is not None

    async def count_due_for_erasure(self, now: datetime | None) -> int:
        """Counts rows with something to erase; None counts those that become due later as well."""
        statement = select(func.count()).where(table.c.erase_at <= now if now else table.c.erase_at.is_not(None))
        return (await self.connection.execute(statement)).scalar_one()

    async def save(self, before: Verification, after: Verification, now: datetime) -> None:
        """Writes the columns that differ between a locked row and its new value, and when it was updated."""
        await self.save_all([(before, after)], now)

    async def save_all(self, changed: Collection[tuple[Verification, Verification]], now: datetime) -> None:
        """Like `save`, for many rows: one statement for all rows in which the same columns differ."""
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        new_events = []
        for before, changed_row in changed:
            kind = change_of(before, changed_row)
            after = touched(before, changed_row, now, is_event=kind is not None)
            if kind:
                new_events.append(describe(kind, after, now))
            old, new = columns_of(before), columns_of(after)
            changes = {name: value for name, value in new.items() if value != old[name]}
            groups.setdefault(tuple(changes), []).append({"row_id": before.id} | changes)
        for names, rows in groups.items():
            if names:
                await self.connection.execute(_SAVE, rows)
        if erased := [before.id for before, after in changed if change_of(before, after) is EventType.ERASED]:
            await self.events.forget(erased)
        await self.events.add_all(new_events)
        await self.counts.add(differences(changed))

    async def list_newest_sealed(self, *, limit: int) -> Sequence[Verification]:
        """Returns the newest rows with a sealed key."""
        statement = select(*COLUMNS).where(table.c.sealed_key.is_not(None)).order_by(table.c.id.desc()).limit(limit)
        return await self._select(statement)

    async def count_pending(self, *, deadline_before: datetime, limit: int) -> int:
        """Counts the incompletely retrieved verifications with an earlier deadline, up to `limit`."""
        some = select(table.c.id).where(_IS_OPEN, table.c.deadline_at < deadline_before).limit(limit).subquery()
        return (await self.connection.execute(select(func.count()).select_from(some))).scalar_one()

    async def first_deadline(self) -> datetime | None:
        """Returns the earliest deadline of an incompletely retrieved verification; None without one."""
        first = select(table.c.deadline_at).where(_IS_OPEN).order_by(table.c.deadline_at).limit(1)
        return await self.connection.scalar(first)

    async def search(
        self,
        wanted: VerificationFilter,
        *,
        limit: int,
        after: Position | None,
        person: PersonIndex | None = None,
    ) -> Sequence[Verification]:
        """Returns at most `limit` rows after a position; with `person`, only those of one person."""
        statement, parameters = page_statement(wanted, limit=limit, after=after, person=person)
        return await self._select(statement, **parameters)

    async def _select(self, statement: Executable, **parameters: Any) -> Sequence[Verification]:
        return [as_verification(row) for row in await self.connection.execute(statement, parameters)]


def as_verification(row: Sequence[Any]) -> Verification:
    """Converts a row of `COLUMNS`. One with an impossible value is marked, so it costs only itself."""
    verification, is_intact = _READER.read(row)
    return verification if is_intact else replace(verification, digest=MALFORMED)
