"""The row is the queue: what is due is claimed by pushing `due_at` a lease ahead.

A worker that dies leaves nothing to clean up: its rows come due again by themselves. A worker that was only slow finds
its claim number outdated and writes nothing (`app.services.retrieve`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy import (
    Executable,
    Integer,
    Update,
    bindparam,
    literal_column,
    select,
    true,
    tuple_,
    union_all,
    update,
)

from app.domain.verification import Priority, Verification
from app.storage.database import Transaction
from app.storage.tables import verification as table
from app.storage.verifications import as_verification


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What may be claimed of what an account has due at `now`: all of it, or that of one rule.

    What is closed, the account or some rules of it, gives away only what has its last try before `last_try_before`.
    """

    account: str
    now: datetime
    last_try_before: datetime
    rule_id: str | None = None
    is_closed: bool = False
    closed_rule_ids: Collection[str] = ()


class Queue:
    """Claims of verifications. The caller brings the transaction."""

    async def claim(self, tx: Transaction, due: Due, *, lease: timedelta, limit: int) -> Sequence[Verification]:
        """Takes `limit` rows at most for the length of the lease: by priority, and then what has been due longest."""
        statement = _claim_statement(
            of_rule=due.rule_id is not None, is_closed=due.is_closed, has_closed_rules=bool(due.closed_rule_ids)
        )
        parameters = {
            "of_account": due.account,
            "at": due.now,
            "last_try_before": due.last_try_before,
            "of_rule_id": due.rule_id,
            "closed_rule_ids": list(due.closed_rule_ids),
            "until": due.now + lease,
            "at_most": limit,
        }
        claimed = [as_verification(row) for row in await tx.execute(statement, parameters)]
        return sorted(claimed, key=lambda verification: verification.priority)

    async def renew(self, tx: Transaction, claimed: Collection[Verification], *, until: datetime) -> None:
        """Moves the end of leases that are still held; claims that a newer one has outdated are left alone."""
        await tx.execute(_held(claimed).values(due_at=until))

    async def hand_back(
        self, tx: Transaction, claimed: Collection[Verification], *, now: datetime, account: str | None = None
    ) -> None:
        """Makes claimed rows due at once, for this account where one is said: they will not be worked on here."""
        moved = {} if account is None else {"account": account}
        await tx.execute(_held(claimed).values(due_at=now, leased=False, **moved))

    async def has_any(self, tx: Transaction, account: str, rule_id: str | None) -> bool:
        """Whether anything of an account, or of one rule of it, is due now or later."""
        statement = select(table.c.id).where(table.c.account == account, table.c.due_at.is_not(None)).limit(1)
        if rule_id is not None:
            statement = statement.where(table.c.rule_id == rule_id)
        return (await tx.scalar(statement)) is not None

    async def adopt(self, tx: Transaction, accounts: Collection[str], *, adopter: str) -> None:
        """Gives what waits for any other than these accounts to the adopter."""
        is_orphan = table.c.account.not_in(accounts) & table.c.due_at.is_not(None)
        await tx.execute(update(table).where(is_orphan).values(account=adopter))


@cache
def _claim_statement(*, of_rule: bool, is_closed: bool, has_closed_rules: bool) -> Executable:
    """Made once for each kind of claim: to put a statement together takes several times as long as to run it."""
    conditions = [table.c.account == bindparam("of_account"), table.c.due_at <= bindparam("at")]
    if of_rule:
        conditions.append(table.c.rule_id == bindparam("of_rule_id"))
    is_last_try = table.c.deadline_at <= bindparam("last_try_before")
    if is_closed:
        conditions.append(is_last_try)
    elif has_closed_rules:
        conditions.append(table.c.rule_id.not_in(bindparam("closed_rule_ids", expanding=True)) | is_last_try)
    at_most = bindparam("at_most", type_=Integer)
    by_priority = [
        select(table.c.id)
        .where(table.c.priority == literal_column(str(int(priority))), *conditions)
        .order_by(table.c.due_at)
        .limit(at_most)
        .with_for_update(skip_locked=True)  # SQLite has one writer and leaves the clause out
        .subquery()
        for priority in Priority
    ]
    # A mere subquery may be run once for each row, and then takes more than the limit; so may a common one that
    # Postgres is free to inline.
    first = (
        union_all(*(select(part.c.id) for part in by_priority)).limit(bindparam("at_most", type_=Integer)).cte("first")
    )
    return (
        update(table)
        .where(table.c.id.in_(select(first.prefix_with("MATERIALIZED", dialect="postgresql").c.id)))
        .values(due_at=bindparam("until"), claim=table.c.claim + 1, leased=true(), woken=False)
        .returning(*table.c)
    )


def _held(claimed: Collection[Verification]) -> Update:
    numbers = [(verification.id, verification.claim) for verification in claimed]
    return update(table).where(table.c.leased, tuple_(table.c.id, table.c.claim).in_(numbers))
