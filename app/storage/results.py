"""Retrieved results: the text, its liveness attempts, the rows that name the media, and the calls to Tencent."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import (
    Column,
    Delete,
    Executable,
    Select,
    String,
    Table,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.detection import MESSAGES, Detection, LivenessAttempt, SealedText, personal
from app.domain.media import MediaItem, MediaKind, MediaRow
from app.domain.verification import LONG_AGO, UpstreamCall
from app.storage import tables
from app.storage.rows import RowReader
from app.storage.tables import columns_of

_ORDER = {kind: place for place, kind in enumerate(MediaKind)}
_KEYS = {"verification_id", "position"}
_MEDIA_ROW = {name: tables.media.c[name] for name in MediaRow._fields}
_CALL_COLUMNS = [tables.upstream_call.c[field.name] for field in fields(UpstreamCall)]
_CALL_READER = RowReader(UpstreamCall, called_at=LONG_AGO, action="", info_type="", duration_ms=0, bytes_received=0)
MEDIA_COLUMNS = [tables.media.c[field.name] for field in fields(MediaItem)]
"""The columns in the order that `MEDIA_READER` expects."""
MEDIA_READER = RowReader(MediaItem)


def _select_by_ids(table: Table, columns: Sequence[Column[Any]]) -> Select[Any]:
    key = table.c.verification_id
    return select(key, *columns).where(key.in_(bindparam("ids", expanding=True)))


def _delete_of(table: Table) -> Delete:
    return delete(table).where(table.c.verification_id == bindparam("verification_id"))


def _select_texts(*, sealed: bool) -> tuple[Select[Any], Select[Any]]:
    """Builds the selects of texts and their attempts, with or without the encrypted personal columns."""
    detection, attempt = tables.detection, tables.liveness_attempt
    left_out = (set[str](), set[str]()) if sealed else (set(personal(Detection)), set(personal(LivenessAttempt)))
    texts, attempts = (
        _select_by_ids(table, [column for column in table.c if column.name not in _KEYS | names])
        for table, names in zip((detection, attempt), left_out, strict=True)
    )
    return texts, attempts.order_by(attempt.c.verification_id, attempt.c.position)


# Built once: building a statement takes several times as long as running it.
_GET_TEXTS = {sealed: _select_texts(sealed=sealed) for sealed in (True, False)}
_GET_MEDIA = _select_by_ids(tables.media, MEDIA_COLUMNS)
_ADD_DETECTION, _ADD_ATTEMPT, _ADD_MEDIA_ITEM, _ADD_CALL = (
    insert(table) for table in (tables.detection, tables.liveness_attempt, tables.media, tables.upstream_call)
)
_DELETE_TEXT = [_delete_of(table) for table in (tables.detection, tables.liveness_attempt)]
_DELETE_CALLS = _delete_of(tables.upstream_call)
# As plain texts: a row that names an unknown kind can be removed as well.
_DELETE_ALL_MEDIA = _delete_of(tables.media).returning(
    *(type_coerce(column, String) if name == "kind" else column for name, column in _MEDIA_ROW.items())
)
_DELETE_MEDIA = _DELETE_ALL_MEDIA.where(tables.media.c.kind.in_(bindparam("kinds", expanding=True)))


@dataclass(frozen=True, slots=True)
class ResultStore:
    """The tables of results."""

    connection: AsyncConnection

    async def remove(self, verification_id: int, *, text: bool, kinds: Collection[MediaKind]) -> Sequence[MediaRow]:
        """Removes the text, or media of some kinds, before newer ones are added; returns the removed media."""
        key = {"verification_id": verification_id}
        for statement in _DELETE_TEXT if text else ():
            await self.connection.execute(statement, key)
        return await self._removed(_DELETE_MEDIA, key | {"kinds": list(kinds)}) if kinds else []

    async def add_all(self, results: Collection[tuple[int, SealedText | None, Collection[MediaItem]]]) -> None:
        """Inserts texts and media items, each with the id of its verification."""
        texts = [(key, text) for key, text, _ in results if text]
        attempts = [
            {"verification_id": key, "position": position, **values}
            for key, text in texts
            for position, values in enumerate(text.attempts)
        ]
        for statement, rows in (
            (_ADD_DETECTION, [{"verification_id": key, **text.values} for key, text in texts]),
            (_ADD_ATTEMPT, attempts),
            (
                _ADD_MEDIA_ITEM,
                [{"verification_id": key} | columns_of(item) for key, _, media in results for item in media],
            ),
        ):
            if rows:
                await self.connection.execute(statement, rows)

    async def erase(self, verification_id: int, *, text: bool) -> Sequence[MediaRow]:
        """Deletes the media, and with `text` everything else; returns the removed media."""
        key = {"verification_id": verification_id}
        for statement in (*_DELETE_TEXT, _DELETE_CALLS) if text else ():
            await self.connection.execute(statement, key)
        return await self._removed(_DELETE_ALL_MEDIA, key)

    async def _removed(self, statement: Executable, key: Mapping[str, Any]) -> Sequence[MediaRow]:
        return [MediaRow(*row) for row in await self.connection.execute(statement, key)]

    async def count_persons(self) -> int:
        """Counts the different ID numbers with stored media. A person known to several clients counts for each."""
        has_media = select(tables.media.c.verification_id)
        counted = func.count(tables.detection.c.id_card_index.distinct())
        statement = select(counted).where(tables.detection.c.verification_id.in_(has_media))
        return (await self.connection.execute(statement)).scalar_one()

    async def add_calls(self, calls: Iterable[tuple[int, UpstreamCall]]) -> None:
        """Records calls to Tencent, each with the id of its verification."""
        await self.connection.execute(_ADD_CALL, [{"verification_id": key} | columns_of(call) for key, call in calls])

    async def calls(self, verification_id: int, *, limit: int) -> Sequence[UpstreamCall]:
        """Returns the newest calls of a verification, oldest first."""
        table = tables.upstream_call
        newest = (
            select(*_CALL_COLUMNS)
            .where(table.c.verification_id == verification_id)
            .order_by(table.c.id.desc())
            .limit(limit)
        )
        return [_CALL_READER.read(row)[0] for row in await self.connection.execute(newest)][::-1]

    async def texts(self, ids: Collection[int], *, sealed: bool = False) -> Mapping[int, SealedText]:
        """Returns the texts of verifications by id; the encrypted personal columns only with `sealed`."""
        get_texts, get_attempts = _GET_TEXTS[sealed]
        attempts = await self._grouped(get_attempts, ids)
        texts = await self._grouped(get_texts, ids)
        return {key: SealedText(values, attempts.get(key, ())) for key, (values,) in texts.items()}

    async def media(self, ids: Collection[int]) -> Mapping[int, Sequence[MediaItem] | None]:
        """Returns the media of verifications by id, in the order of `MediaKind`; None if one of them is malformed."""
        found: dict[int, list[MediaItem] | None] = {}
        for key, *row in await self.connection.execute(_GET_MEDIA, {"ids": list(ids)}):
            item, is_intact = MEDIA_READER.read(row)
            items = found.setdefault(key, [])
            if items is not None and is_intact:
                items.append(item)
            else:
                found[key] = None
        return {key: items and sorted(items, key=lambda item: _ORDER[item.kind]) for key, items in found.items()}

    async def list_readable(self, *, after_id: int, limit: int) -> Sequence[int]:
        """Returns the ids of verifications with larger ids whose messages an earlier version stored readable."""
        detection, attempt = tables.detection, tables.liveness_attempt
        key = detection.c.verification_id
        has_attempt = exists().where(attempt.c.verification_id == key, attempt.c.err_msg.is_not(None))
        is_readable = or_(has_attempt, *(detection.c[name].is_not(None) for name in MESSAGES))
        statement = select(key).where(key > after_id, is_readable).order_by(key).limit(limit)
        return (await self.connection.scalars(statement)).all()

    async def referenced(self, keys: Collection[str]) -> frozenset[str]:
        """Returns those of the object keys that a row names."""
        named = select(tables.media.c.object_key).where(tables.media.c.object_key.in_(keys))
        return frozenset(await self.connection.scalars(named))

    async def _grouped(self, statement: Select[Any], ids: Collection[int]) -> dict[int, list[dict[str, Any]]]:
        groups: dict[int, list[dict[str, Any]]] = {}
        result = await self.connection.execute(statement, {"ids": list(ids)})
        names = tuple(result.keys())
        for row in result:
            values = dict(zip(names, row, strict=True))
            groups.setdefault(values.pop("verification_id"), []).append(values)
        return groups
