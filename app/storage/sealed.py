"""What the key ring has sealed, by the version that did: counted, and read in batches to be sealed anew."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Integer, LargeBinary, Row, Table, bindparam, func, select, update

from app.domain.verification import Verification
from app.storage import tables
from app.storage.database import Transaction
from app.storage.verifications import as_verification

_VERSION_BYTES = 4  # the number of the version, which every sealed key and every digest begins with

VERIFICATIONS = tables.verification.c.sealed_key
API_KEYS = tables.api_key.c.sealed_digest
MEDIA = tables.media.c.sealed_key
INDEXES = tables.detection.c.id_card_index
Sealed = ColumnElement[bytes]


class SealedStore:
    """The columns that depend on the key ring. The caller brings the transaction."""

    async def count(self, tx: Transaction, sealed: Sealed) -> Mapping[int, int]:
        """How many values each version has sealed."""
        version = _version(sealed)
        found = await tx.execute(select(version, func.count()).where(sealed.is_not(None)).group_by(version))
        return {int.from_bytes(number, "big"): count for number, count in found}

    async def outdated(self, tx: Transaction, sealed: Sealed, newest: int, *, limit: int) -> Sequence[Row[Any]]:
        """Rows with what another version has sealed, locked."""
        table = _table(sealed)
        is_outdated = sealed.is_not(None) & (_version(sealed) != newest.to_bytes(_VERSION_BYTES, "big"))
        return (await tx.execute(select(table).where(is_outdated).limit(limit).with_for_update())).all()

    async def owners(self, tx: Transaction, ids: Sequence[int]) -> Mapping[int, Verification]:
        """The verifications of these numbers."""
        statement = select(tables.verification).where(tables.verification.c.id.in_(ids))
        return {row.id: as_verification(row) for row in await tx.execute(statement)}

    async def replace(self, tx: Transaction, sealed: Sealed, row: Row[Any], values: Mapping[str, Any]) -> None:
        """Writes what was sealed anew."""
        table = _table(sealed)
        keys = [column == getattr(row, column.name) for column in table.primary_key]
        await tx.execute(update(table).where(*keys).values(values))


def _table(sealed: Sealed) -> Table:
    return next(table for table in tables.metadata.sorted_tables if sealed in set(table.c))


def _version(sealed: Sealed) -> ColumnElement[bytes]:
    first, length = bindparam("first", 1, Integer), bindparam("length", _VERSION_BYTES, Integer)
    return func.substr(sealed, first, length, type_=LargeBinary)
