"""The record of disclosures: who saw whose data, when and what for. It holds no personal data itself."""

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import insert

from app.storage.database import Transaction
from app.storage.tables import audit as table


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """One row of the record."""

    at: datetime
    key_id: str
    client: str
    action: str
    verification_id: int
    purpose: str
    request_id: str


class AuditStore:
    """The table of disclosures; rows are only ever added. The caller brings the transaction."""

    async def add(self, tx: Transaction, disclosure: Disclosure) -> None:
        """Puts a disclosure on record, before it happens."""
        await tx.execute(insert(table).values(asdict(disclosure)))
