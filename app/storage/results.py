"""What was retrieved: the text of a result, its liveness attempts, the rows that name its media, the calls it took."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Column, Delete, Select, Table, bindparam, delete, func, insert, select

from app.domain.detection import Detection, LivenessAttempt, MediaKind, Medium, personal
from app.domain.verification import Call
from app.storage import tables
from app.storage.database import Transaction
from app.storage.tables import columns_of

_ORDER = {kind: place for place, kind in enumerate(MediaKind)}
_KEYS = {"verification_id", "position"}
_MEDIUM = [tables.media.c[field.name] for field in fields(Medium)]


def _of_some(table: Table, columns: Sequence[Column[Any]]) -> Select[Any]:
    key = table.c.verification_id
    return select(key, *columns).where(key.in_(bindparam("ids", expanding=True)))


def _of_one(table: Table) -> Delete:
    return delete(table).where(table.c.verification_id == bindparam("verification_id"))


def _texts(*, sealed: bool) -> tuple[Select[Any], Select[Any]]:
    """Selects texts and their attempts, with or without what is sealed of the person."""
    detection, attempt = tables.detection, tables.liveness_attempt
    left_out = (set[str](), set[str]()) if sealed else (set(personal(Detection)), set(personal(LivenessAttempt)))
    texts, attempts = (
        _of_some(table, [column for column in table.c if column.name not in _KEYS | names])
        for table, names in zip((detection, attempt), left_out, strict=True)
    )
    return texts, attempts.order_by(attempt.c.verification_id, attempt.c.position)


# Made once: to put a statement together takes several times as long as to run it.
_GET_TEXTS = {sealed: _texts(sealed=sealed) for sealed in (True, False)}
_GET_MEDIA = _of_some(tables.media, _MEDIUM)
_ADD_DETECTION, _ADD_ATTEMPT, _ADD_MEDIUM, _ADD_CALL = (
    insert(table) for table in (tables.detection, tables.liveness_attempt, tables.media, tables.upstream_call)
)
_REMOVE_DETECTION = [_of_one(table) for table in (tables.detection, tables.liveness_attempt)]
_REMOVE_ALL_BUT_MEDIA = [*_REMOVE_DETECTION, _of_one(tables.upstream_call)]
_REMOVE_ALL_MEDIA = _of_one(tables.media).returning(tables.media.c.object_key)
_REMOVE_MEDIA = (
    _of_one(tables.media)
    .where(tables.media.c.kind.in_(bindparam("kinds", expanding=True)))
    .returning(tables.media.c.object_key)
)


@dataclass(frozen=True, slots=True)
class SealedText:
    """A text as it is stored: the columns of `detection`, and of each attempt."""

    values: Mapping[str, Any]
    attempts: Sequence[Mapping[str, Any]] = ()


class ResultStore:
    """The tables of results. The caller brings the transaction."""

    async def remove(
        self, tx: Transaction, verification_id: int, *, text: bool, kinds: Collection[MediaKind]
    ) -> Sequence[str]:
        """Makes room for a newer text, or media of these kinds; answers the object keys that are named no more."""
        key = {"verification_id": verification_id}
        for statement in _REMOVE_DETECTION if text else ():
            await tx.execute(statement, key)
        return (await tx.scalars(_REMOVE_MEDIA, key | {"kinds": list(kinds)})).all() if kinds else []

    async def add_all(
        self, tx: Transaction, results: Collection[tuple[int, SealedText | None, Collection[Medium]]]
    ) -> None:
        """Keeps the texts of results and names their media, where there are none yet; each with its verification."""
        texts = [(key, text) for key, text, _ in results if text]
        for statement, rows in (
            (_ADD_DETECTION, [{"verification_id": key, **text.values} for key, text in texts]),
            (
                _ADD_ATTEMPT,
                [
                    {"verification_id": key, "position": position, **values}
                    for key, text in texts
                    for position, values in enumerate(text.attempts)
                ],
            ),
            (_ADD_MEDIUM, [{"verification_id": key} | columns_of(one) for key, _, media in results for one in media]),
        ):
            if rows:
                await tx.execute(statement, rows)

    async def erase(self, tx: Transaction, verification_id: int, *, text: bool) -> Sequence[str]:
        """Removes the media, with `text` all else as well; answers the object keys that are named no more."""
        key = {"verification_id": verification_id}
        for statement in _REMOVE_ALL_BUT_MEDIA if text else ():
            await tx.execute(statement, key)
        return (await tx.scalars(_REMOVE_ALL_MEDIA, key)).all()

    async def count_persons(self, tx: Transaction) -> int:
        """Of how many different ID numbers a face is stored; who is known to several clients counts for each."""
        has_media = select(tables.media.c.verification_id)
        counted = func.count(tables.detection.c.id_card_index.distinct())
        return (await tx.execute(select(counted).where(tables.detection.c.verification_id.in_(has_media)))).scalar_one()

    async def add_calls(self, tx: Transaction, calls: Iterable[tuple[int, Call]]) -> None:
        """Puts calls to Tencent on record, each with its verification."""
        await tx.execute(_ADD_CALL, [{"verification_id": key} | columns_of(call) for key, call in calls])

    async def texts(self, tx: Transaction, ids: Collection[int], *, sealed: bool = False) -> Mapping[int, SealedText]:
        """The texts of these verifications, by id; what is sealed of the person only where it is asked for."""
        get_texts, get_attempts = _GET_TEXTS[sealed]
        attempts = await _grouped(tx, get_attempts, ids)
        texts = await _grouped(tx, get_texts, ids)
        return {key: SealedText(values, attempts.get(key, ())) for key, (values,) in texts.items()}

    async def media(self, tx: Transaction, ids: Collection[int]) -> Mapping[int, Sequence[Medium]]:
        """The media of these verifications, by id, in the order in which `MediaKind` names them."""
        found = await _grouped(tx, _GET_MEDIA, ids)
        return {
            key: sorted((_medium(values) for values in rows), key=lambda medium: _ORDER[medium.kind])
            for key, rows in found.items()
        }

    async def named(self, tx: Transaction, keys: Collection[str]) -> frozenset[str]:
        """Which of these object keys some row names."""
        return frozenset(await tx.scalars(select(tables.media.c.object_key).where(tables.media.c.object_key.in_(keys))))


async def _grouped(tx: Transaction, statement: Select[Any], ids: Collection[int]) -> dict[int, list[dict[str, Any]]]:
    groups: dict[int, list[dict[str, Any]]] = {}
    result = await tx.execute(statement, {"ids": list(ids)})
    names = tuple(result.keys())
    for row in result:
        values = dict(zip(names, row, strict=True))
        groups.setdefault(values.pop("verification_id"), []).append(values)
    return groups


def _medium(values: dict[str, Any]) -> Medium:
    return Medium(**values | {"kind": MediaKind(values["kind"])})
