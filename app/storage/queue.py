"""The row is the queue: a claim takes due rows and moves their `due_at` one lease ahead.

A worker that dies leaves nothing to clean up, because its rows come due again. A worker that was only slow finds its
claim number outdated and writes nothing (`app.services.record`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy import (
    ColumnElement,
    Executable,
    Integer,
    bindparam,
    literal_column,
    select,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.verification import Priority, Verification
from app.storage.tables import verification as table
from app.storage.verifications import COLUMNS, as_verification


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The verifications that may be claimed for an account, or for one rule of it, at `now`.

    From a paused account or rule only those are claimed whose deadline is not after `last_deadline`.
    """

    account: str
    now: datetime
    last_deadline: datetime
    rule_id: str | None = None
    is_paused: bool = False
    paused_rule_ids: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class QueueStore:
    """The claims of verifications."""

    connection: AsyncConnection

    async def claim(self, due: Due, *, lease: timedelta, limit: int) -> Sequence[Verification]:
        """Claims at most `limit` rows for the lease: by priority, then the longest due first."""
        statement = _claim_statement(
            of_rule=due.rule_id is not None, is_paused=due.is_paused, has_paused_rules=bool(due.paused_rule_ids)
        )
        parameters = {
            "of_account": due.account,
            "at": due.now,
            "last_deadline": due.last_deadline,
            "of_rule_id": due.rule_id,
            "paused_rule_ids": list(due.paused_rule_ids),
            "until": due.now + lease,
            "at_most": limit,
        }
        claimed = [as_verification(row) for row in await self.connection.execute(statement, parameters)]
        return sorted(claimed, key=lambda verification: verification.priority)

    async def renew(self, claimed: Collection[Verification], *, until: datetime) -> None:
        """Extends leases that are still held. Outdated claims stay as they are."""
        await self._update(_is_held(claimed), due_at=until)

    async def hand_back(self, claimed: Collection[Verification], *, now: datetime, account: str | None = None) -> None:
        """Releases claims and makes their rows due at once, for another `account` if one is given."""
        moved = {} if account is None else {"account": account}
        await self._update(_is_held(claimed), due_at=now, is_leased=False, **moved)

    async def has_any(self, account: str, rule_id: str | None) -> bool:
        """Returns whether anything of an account, or of one rule of it, is due now or later."""
        statement = select(table.c.id).where(table.c.account == account, table.c.due_at.is_not(None)).limit(1)
        if rule_id is not None:
            statement = statement.where(table.c.rule_id == rule_id)
        return (await self.connection.scalar(statement)) is not None

    async def bring_forward(self, accounts: Collection[str], *, now: datetime, farthest: datetime) -> None:
        """Makes rows due now whose next call lies after `farthest`: a clock that was wrong has scheduled it.

        Calls of the lowest priority may be scheduled for the end of the token's life, and stay.
        """
        is_urgent = table.c.account.in_(accounts) & table.c.priority.in_(set(Priority) - {Priority.LAST})
        await self._update(is_urgent & (table.c.due_at > farthest), due_at=now)

    async def adopt(self, accounts: Collection[str], *, adopter: str) -> None:
        """Moves pending rows of any account except `accounts` to the adopter."""
        is_abandoned = table.c.account.not_in(accounts) & table.c.due_at.is_not(None)
        await self._update(is_abandoned, account=adopter)

    async def _update(self, condition: ColumnElement[bool], **values: object) -> None:
        """Changes rows after locking them in the order of their ids, as recording does, which prevents deadlocks."""
        await self.connection.execute(select(table.c.id).where(condition).order_by(table.c.id).with_for_update())
        await self.connection.execute(update(table).where(condition).values(**values))


@cache
def _claim_statement(*, of_rule: bool, is_paused: bool, has_paused_rules: bool) -> Executable:
    """Builds the statement once per kind of claim: building takes several times as long as running it."""
    conditions = [table.c.account == bindparam("of_account"), table.c.due_at <= bindparam("at")]
    if of_rule:
        conditions.append(table.c.rule_id == bindparam("of_rule_id"))
    is_last_try = table.c.deadline_at <= bindparam("last_deadline")
    if is_paused:
        conditions.append(is_last_try)
    elif has_paused_rules:
        conditions.append(table.c.rule_id.not_in(bindparam("paused_rule_ids", expanding=True)) | is_last_try)
    at_most = bindparam("at_most", type_=Integer)
    by_priority = [
        select(table.c.id)
        .where(table.c.priority == literal_column(str(int(priority))), *conditions)
        .order_by(table.c.due_at)
        .limit(at_most)
        # SQLite has one writer and omits the clause.
        .with_for_update(skip_locked=True)
        .subquery()
        for priority in Priority
    ]
    # Both databases read the parts in this order: only parallel plans mix them, and locking rows rules those out.
    # Postgres may run a plain subquery once per row and then claim more than the limit. It may also inline a common
    # table expression, unless that is materialized.
    first = (
        union_all(*(select(part.c.id) for part in by_priority)).limit(bindparam("at_most", type_=Integer)).cte("first")
    )
    return (
        update(table)
        .where(table.c.id.in_(select(first.prefix_with("MATERIALIZED", dialect="postgresql").c.id)))
        .values(due_at=bindparam("until"), claim=table.c.claim + 1, is_leased=true(), wake_requested=False)
        .returning(*COLUMNS)
    )


def _is_held(claimed: Collection[Verification]) -> ColumnElement[bool]:
    claims = [(verification.id, verification.claim) for verification in claimed]
    return table.c.is_leased & tuple_(table.c.id, table.c.claim).in_(claims)
