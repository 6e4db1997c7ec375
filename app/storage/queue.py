"""The row is the queue: a claim takes due rows and moves their `due_at` one lease ahead.

A worker that dies leaves nothing to clean up, because its rows come due again. A worker that was only slow finds its
claim number outdated and writes nothing (`app.services.record`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Executable,
    Integer,
    Select,
    bindparam,
    func,
    literal_column,
    select,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.turns import Turn
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

    async def turns(self, account: str, now: datetime) -> Sequence[Turn]:
        """Returns which clients have due rows, by priority."""
        rows = await self.connection.execute(_TURNS, {"of_account": account, "at": now})
        # SQLite stores a client that is no text as well.
        return [Turn(Priority(row.priority), row.client) for row in rows if isinstance(row.client, str)]

    async def claim(
        self, due: Due, turns: Sequence[Sequence[Turn]], *, lease: timedelta, limit: int
    ) -> Sequence[Verification]:
        """Claims at most `limit` rows for the lease.

        Within a group of turns, the row that is due longest is claimed for each turn, then the second for each, and so
        on. The groups follow one another.
        """
        branches = [(rank, turn) for rank, group in enumerate(turns) for turn in group]
        if not branches or limit <= 0:
            return []
        # Few different numbers, so few statements are built and prepared.
        size = 1 << (len(branches) - 1).bit_length()
        statement = _claim_statement(
            size, of_rule=due.rule_id is not None, is_paused=due.is_paused, has_paused_rules=bool(due.paused_rule_ids)
        )
        parameters: dict[str, object] = {
            "of_account": due.account,
            "at": due.now,
            "last_deadline": due.last_deadline,
            "of_rule_id": due.rule_id,
            "paused_rule_ids": list(due.paused_rule_ids),
            "until": due.now + lease,
            "at_most": limit,
        }
        for place in range(size):
            rank, turn = branches[place] if place < len(branches) else (0, None)
            parameters |= {
                f"rank_{place}": rank,
                f"priority_{place}": turn.priority if turn else Priority.FRESH,
                # No client is NULL.
                f"client_{place}": turn.client if turn else None,
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

    async def oldest_due_at(self, account: str, now: datetime) -> datetime | None:
        """Returns since when the longest due row of an account has waited; None if none is due."""
        at: datetime | None = await self.connection.scalar(_OLDEST, {"of_account": account, "at": now})
        return at

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


def _clients_of(priority: Priority, *, with_times: bool = False) -> Select[Any]:
    """Selects the clients with due rows by a loose scan: one step in the index per client, however many rows it has.

    `with_times` selects the time of the row that is due longest instead of the client.
    """
    of_priority = (
        (table.c.account == bindparam("of_account"))
        & (table.c.priority == literal_column(str(int(priority))))
        & table.c.due_at.is_not(None)
    )
    first = select(table.c.client).where(of_priority).order_by(table.c.client).limit(1)
    clients = select(first.scalar_subquery().label("client")).cte(f"clients_{int(priority)}", recursive=True)
    following = first.where(table.c.client > clients.c.client).correlate(clients)
    clients = clients.union_all(select(following.scalar_subquery()).where(clients.c.client.is_not(None)))
    longest_due = (
        select(table.c.due_at)
        .where(of_priority, table.c.client == clients.c.client)
        .order_by(table.c.due_at)
        .limit(1)
        .correlate(clients)
        .scalar_subquery()
    )
    columns = [literal_column(str(int(priority)), Integer).label("priority"), clients.c.client]
    return select(*([longest_due.label("due_at")] if with_times else columns)).where(
        clients.c.client.is_not(None), longest_due <= bindparam("at", type_=table.c.due_at.type)
    )


# Built once: building a statement takes several times as long as running it.
_TURNS = union_all(*(_clients_of(priority) for priority in Priority))
_TIMES = union_all(*(_clients_of(priority, with_times=True) for priority in Priority)).subquery()
_OLDEST = select(func.min(_TIMES.c.due_at))


@cache
def _claim_statement(size: int, *, of_rule: bool, is_paused: bool, has_paused_rules: bool) -> Executable:
    """Builds the statement for so many turns."""
    conditions = [table.c.account == bindparam("of_account"), table.c.due_at <= bindparam("at")]
    if of_rule:
        conditions.append(table.c.rule_id == bindparam("of_rule_id"))
    is_last_try = table.c.deadline_at <= bindparam("last_deadline")
    if is_paused:
        conditions.append(is_last_try)
    elif has_paused_rules:
        conditions.append(table.c.rule_id.not_in(bindparam("paused_rule_ids", expanding=True)) | is_last_try)
    at_most = bindparam("at_most", type_=Integer)
    turns = [_turn(place, conditions, at_most) for place in range(size)]
    everything = union_all(*turns).subquery()
    # Postgres may run a plain subquery once per row and then claim more than the limit. It may also inline a common
    # table expression, unless that is materialized.
    first = (
        select(everything.c.id)
        .order_by(everything.c.rank, everything.c.number, everything.c.place)
        .limit(at_most)
        .cte("first")
    )
    return (
        update(table)
        .where(table.c.id.in_(select(first.prefix_with("MATERIALIZED", dialect="postgresql").c.id)))
        .values(due_at=bindparam("until"), claim=table.c.claim + 1, is_leased=true(), wake_requested=False)
        .returning(*COLUMNS)
    )


def _turn(place: int, conditions: Collection[ColumnElement[bool]], at_most: BindParameter[int]) -> Select[Any]:
    """Selects the rows of one turn, numbered from the one that is due longest."""
    rows = (
        select(table.c.id, table.c.due_at)
        .where(
            table.c.priority == bindparam(f"priority_{place}", type_=table.c.priority.type),
            table.c.client == bindparam(f"client_{place}", type_=table.c.client.type),
            *conditions,
        )
        .order_by(table.c.due_at)
        .limit(at_most)
        # SQLite has one writer and omits the clause.
        .with_for_update(skip_locked=True)
        .subquery()
    )
    return select(
        rows.c.id,
        bindparam(f"rank_{place}", type_=Integer).label("rank"),
        literal_column(str(place), Integer).label("place"),
        func.row_number().over(order_by=rows.c.due_at).label("number"),
    )


def _is_held(claimed: Collection[Verification]) -> ColumnElement[bool]:
    claims = [(verification.id, verification.claim) for verification in claimed]
    return table.c.is_leased & tuple_(table.c.id, table.c.claim).in_(claims)
