"""The row is the queue: what is due is claimed by pushing `due_at` a lease ahead.

A worker that dies leaves nothing to clean up: its rows come due again by themselves. A worker that was only slow finds
its claim number outdated and writes nothing (`app.services.retrieve`).
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Update, select, true, tuple_, update

from app.domain.verification import Verification
from app.storage.database import Transaction
from app.storage.tables import verification as table
from app.storage.verifications import as_verification


class Queue:
    """Claims of verifications. The caller brings the transaction."""

    async def claim(self, tx: Transaction, *, now: datetime, lease: timedelta, limit: int) -> Sequence[Verification]:
        """Takes what has been due longest, `limit` rows at most, for the length of the lease."""
        due = (
            select(table.c.id)
            .where(table.c.due_at <= now)
            .order_by(table.c.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True)  # SQLite has one writer and leaves the clause out
            .cte("due")  # a mere subquery may be run once for each row, and then takes more than the limit
        )
        statement = (
            update(table)
            .where(table.c.id.in_(select(due.c.id)))
            .values(due_at=now + lease, claim=table.c.claim + 1, leased=true(), woken=False)
            .returning(*table.c)
        )
        return [as_verification(row) for row in await tx.execute(statement)]

    async def renew(self, tx: Transaction, claimed: Collection[Verification], *, until: datetime) -> None:
        """Moves the end of leases that are still held; claims that a newer one has outdated are left alone."""
        await tx.execute(_held(claimed).values(due_at=until))

    async def hand_back(self, tx: Transaction, claimed: Collection[Verification], *, now: datetime) -> None:
        """Makes claimed rows due at once: the worker that holds them stops."""
        await tx.execute(_held(claimed).values(due_at=now, leased=False))


def _held(claimed: Collection[Verification]) -> Update:
    numbers = [(verification.id, verification.claim) for verification in claimed]
    return update(table).where(table.c.leased, tuple_(table.c.id, table.c.claim).in_(numbers))
