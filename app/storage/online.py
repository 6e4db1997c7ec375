"""The slow part of a Postgres migration: indexes, batches, and the constraint that an index replaces.

Blocks no writer for longer than a second, and continues if interrupted.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from sqlalchemy import Index, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateIndex

from app.domain.verification import LONG_AGO, STANDINGS
from app.errors import UnavailableError
from app.storage.column_types import NO_OUTCOME
from app.storage.database import Database
from app.storage.tables import metadata

# "faceidix" in ASCII. Not waited for: a waiting statement would hold up the index that it waits for.
_LOCK = 0x6661636569646978
_POLL_SECONDS = 0.2
_MAX_WAIT_SECONDS = 3600.0
_BATCH = 1000
_VALID_INDEXES = text(
    "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE i.indisvalid AND n.nspname = current_schema()"
)
# Replaced by the unique index of token and client. Removing it waits for all transactions that use the table, and all
# later ones wait for that, so it gives up after a second.
_OBSOLETE = text(
    "SELECT 1 FROM pg_constraint"
    " WHERE conname = 'uq_verification_biz_token' AND connamespace = current_schema()::regnamespace"
)
_DROP = text(
    "DO $$ BEGIN SET LOCAL lock_timeout = '1s';"
    " ALTER TABLE verification DROP CONSTRAINT uq_verification_biz_token; END $$"
)
_LOCK_NOT_AVAILABLE = "55P03"
# Rows of earlier versions. A row that a worker has locked gets its time from the worker.
_FILL = text(
    "UPDATE verification SET updated_at ="
    " greatest(registered_at, received_at, retrieved_at, erased_at, '2000-01-01 00:00:01+00')"
    " WHERE id IN (SELECT id FROM verification WHERE (state, outcome, updated_at) = (:state, :outcome, :unknown)"
    " LIMIT :batch FOR UPDATE SKIP LOCKED)"
)


async def finish(database: Database) -> None:
    """Builds the missing indexes of a migrated Postgres, and removes the constraint that one of them replaces.

    Then it fills the times of the last update batch by batch.
    """
    async with database.maintain() as connection, _locked(connection):
        valid = set(await connection.scalars(_VALID_INDEXES))
        for index in _missing(valid):
            statement = str(CreateIndex(index).compile(dialect=connection.dialect))
            # The remains of an interrupted build.
            await connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}"))
            await connection.execute(text(statement.replace("INDEX", "INDEX CONCURRENTLY", 1)))
        await _remove_constraint(connection)
        for state, outcome in STANDINGS:
            await _fill(connection, state, outcome or NO_OUTCOME)


def _missing(valid: Collection[str]) -> list[Index]:
    indexes = (index for table in metadata.sorted_tables for index in table.indexes)
    return sorted((index for index in indexes if index.name not in valid), key=lambda index: str(index.name))


async def _remove_constraint(connection: AsyncConnection) -> None:
    end = time.monotonic() + _MAX_WAIT_SECONDS
    while await connection.scalar(_OBSOLETE):
        try:
            await connection.execute(_DROP)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE or time.monotonic() > end:
                raise
            await asyncio.sleep(_POLL_SECONDS)


async def _fill(connection: AsyncConnection, state: str, outcome: str) -> None:
    parameters = {"state": state, "outcome": outcome, "unknown": LONG_AGO, "batch": _BATCH}
    while (await connection.execute(_FILL, parameters)).rowcount:
        pass


@asynccontextmanager
async def _locked(connection: AsyncConnection) -> AsyncIterator[None]:
    """Lets one process at a time work. The lock belongs to the session, so it needs a direct connection.

    Raises:
        UnavailableError: another process has not finished within an hour.
    """
    end = time.monotonic() + _MAX_WAIT_SECONDS
    while not await connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK}):
        if time.monotonic() > end:
            raise UnavailableError(
                "Another process has been building indexes for an hour. If there is none, connect to Postgres "
                "directly instead of through a pooler, and run `faceid-results migrate` again."
            )
        await asyncio.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        await connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
