"""Writes and reads rows of verifications for the tests of the stores."""

from collections.abc import Sequence

from app.domain.verification import Verification
from app.storage.database import Database
from tests.support.rows import find_row


async def add(database: Database, *rows: Verification) -> Sequence[Verification]:
    """Inserts rows of unknown tokens; returns them with their ids, in the same order."""
    async with database.write() as tx:
        added = await tx.verifications.add_all(rows)
    return [added[row.owner] for row in rows if row.owner in added]


async def find(database: Database, biz_token: str) -> Verification:
    """Returns the row of a known token."""
    async with database.read() as tx:
        row = await find_row(tx, biz_token)
    assert row is not None
    return row
