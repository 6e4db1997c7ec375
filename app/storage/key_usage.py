"""Keys and digests by the key version that made them: counted, and read in batches to be renewed.

Every wrapped key and every digest begins with the number of its key version, the *prefix*.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Integer,
    LargeBinary,
    String,
    Update,
    bindparam,
    func,
    select,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.detection import SealedText
from app.domain.media import MediaItem, MediaKind
from app.domain.verification import Verification
from app.storage.results import MEDIA_COLUMNS, MEDIA_READER
from app.storage.tables import api_key, audit_link, detection, media, verification
from app.storage.verifications import COLUMNS, as_verification
from app.storage.webhook_tables import webhook_endpoint

VERIFICATIONS = verification.c.sealed_key
ENDPOINTS = webhook_endpoint.c.sealed_secret
PREVIOUS_SECRETS = webhook_endpoint.c.previous_secret
API_KEYS = api_key.c.sealed_digest
MEDIA = media.c.sealed_key
INDEXES = detection.c.id_card_index
LINKS = audit_link.c.hash

_HASH_BYTES = 32
# As a plain text: a row that names an unknown kind has a position as well.
_KIND = type_coerce(media.c.kind, String)
_TEXT_COLUMNS = [column for column in detection.c if column.name != "verification_id"]


@dataclass(frozen=True, slots=True)
class KeyUsageStore:
    """The columns that depend on the key ring. A batch is locked, in the order of its primary key."""

    connection: AsyncConnection

    async def count(self, column: Column[bytes], prefix_bytes: int) -> Mapping[bytes, int]:
        """Counts the values of a column by their prefix of so many bytes, except those without a key version.

        SQLite also stores texts and numbers, which no key has made.
        """
        prefix, least = _prefix(column, prefix_bytes), _HASH_BYTES if column is LINKS else 0
        statement = select(prefix, func.count()).where(func.length(column) > least).group_by(prefix)
        counted: Iterable[Sequence[Any]] = await self.connection.execute(statement)
        return {row[0]: row[1] for row in counted if isinstance(row[0], bytes)}

    async def outdated_verifications(self, newest: bytes, *, after_id: int, limit: int) -> Sequence[Verification]:
        """Returns verifications with larger ids whose key was not wrapped under the newest prefix."""
        statement = (
            select(*COLUMNS)
            .where(verification.c.id > after_id, is_outdated_by(VERIFICATIONS, newest))
            .order_by(verification.c.id)
            .limit(limit)
            .with_for_update()
        )
        return [as_verification(row) for row in await self.connection.execute(statement)]

    async def outdated_media(
        self, newest: bytes, *, after: tuple[int, str], limit: int
    ) -> Sequence[tuple[Verification, str, MediaItem | None]]:
        """Returns media items after (verification id, kind) whose key is outdated.

        Each has its verification and its kind as stored. A malformed item is None.
        """
        key = media.c.verification_id, _KIND
        statement = (
            select(*COLUMNS, _KIND.label("stored_kind"), *MEDIA_COLUMNS)
            .join(media, media.c.verification_id == verification.c.id)
            .where(tuple_(*key) > tuple_(*after), is_outdated_by(MEDIA, newest))
            .order_by(*key)
            .limit(limit)
            .with_for_update(of=[verification, media])
        )
        found = []
        for row in await self.connection.execute(statement):
            item, is_intact = MEDIA_READER.read(row[len(COLUMNS) + 1 :])
            found.append((as_verification(row[: len(COLUMNS)]), row.stored_kind, item if is_intact else None))
        return found

    async def outdated_texts(
        self, newest: bytes, *, after_id: int, limit: int
    ) -> Sequence[tuple[Verification, SealedText]]:
        """Returns texts with larger ids, without attempts, each with its verification, whose indexes are outdated."""
        key = detection.c.verification_id
        statement = (
            select(*COLUMNS, *_TEXT_COLUMNS)
            .join(detection, key == verification.c.id)
            .where(key > after_id, is_outdated_by(INDEXES, newest))
            .order_by(key)
            .limit(limit)
            .with_for_update(of=[verification, detection])
        )
        names = [column.name for column in _TEXT_COLUMNS]
        return [
            (as_verification(row[: len(COLUMNS)]), SealedText(dict(zip(names, row[len(COLUMNS) :], strict=True))))
            for row in await self.connection.execute(statement)
        ]

    async def save_verifications(self, rows: Sequence[Verification]) -> None:
        """Replaces the wrapped keys and the digests of verifications."""
        statement = update(verification).where(verification.c.id == bindparam("row_id"))
        columns = [{"row_id": row.id, "sealed_key": row.sealed_key, "digest": row.digest} for row in rows]
        await self._execute(statement, columns)

    async def save_media_keys(self, keys: Mapping[tuple[int, MediaKind], bytes]) -> None:
        """Replaces the wrapped keys of media items."""
        statement = update(media).where(
            media.c.verification_id == bindparam("row_id"), media.c.kind == bindparam("of_kind")
        )
        rows = [{"row_id": row_id, "of_kind": kind, "sealed_key": key} for (row_id, kind), key in keys.items()]
        await self._execute(statement, rows)

    async def save_indexes(self, indexes: Mapping[int, Mapping[str, bytes | None]]) -> None:
        """Replaces the digests that persons are found by."""
        statement = update(detection).where(detection.c.verification_id == bindparam("row_id"))
        await self._execute(statement, [{"row_id": row_id, **values} for row_id, values in indexes.items()])

    async def save_api_key_digests(self, digests: Mapping[str, bytes]) -> None:
        """Replaces the sealed digests of API keys."""
        statement = update(api_key).where(api_key.c.id == bindparam("row_id"))
        await self._execute(
            statement, [{"row_id": key_id, "sealed_digest": value} for key_id, value in digests.items()]
        )

    async def _execute(self, statement: Update, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            await self.connection.execute(statement, rows)


def is_outdated_by(column: Column[bytes], newest: bytes) -> ColumnElement[bool]:
    """Returns the condition that a value was made by another version of a key than the newest."""
    return column.is_not(None) & (_prefix(column, len(newest)) != newest)


def _prefix(column: Column[bytes], length: int) -> ColumnElement[bytes]:
    return func.substr(column, bindparam(None, 1, Integer), bindparam(None, length, Integer), type_=LargeBinary)
