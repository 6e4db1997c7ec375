"""Workers that report themselves, so every process can count them."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.tables import worker as table


@dataclass(frozen=True, slots=True)
class WorkerStore:
    """The table of workers."""

    connection: AsyncConnection

    async def report(self, worker_id: str, at: datetime) -> None:
        """Notes that a worker runs."""
        insert = postgresql.insert if self.connection.dialect.name == "postgresql" else sqlite.insert
        new = insert(table).values(id=worker_id, seen_at=at)
        seen = new.on_conflict_do_update(index_elements=[table.c.id], set_={"seen_at": new.excluded.seen_at})
        await self.connection.execute(seen)

    async def remove(self, worker_id: str) -> None:
        """Removes a worker that has stopped."""
        await self.connection.execute(delete(table).where(table.c.id == worker_id))

    async def remove_unseen(self, since: datetime) -> None:
        """Removes workers that were killed."""
        await self.connection.execute(delete(table).where(table.c.seen_at < since))

    async def count_seen(self, since: datetime) -> int:
        """Counts the workers that have reported since an instant."""
        statement = select(func.count()).select_from(table).where(table.c.seen_at >= since)
        return (await self.connection.execute(statement)).scalar_one()
