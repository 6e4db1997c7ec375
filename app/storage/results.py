"""What was retrieved: the text of a result, its liveness attempts, the rows that name its media, the calls it took."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Column, Delete, Select, Table, bindparam, delete, insert, select

from app.domain.detection import Detection, LivenessAttempt, MediaKind, Medium
from app.domain.verification import Call
from app.storage import tables
from app.storage.database import Transaction

_DETECTION = [tables.detection.c[field.name] for field in fields(Detection) if field.name != "liveness_attempts"]
_ATTEMPT = [tables.liveness_attempt.c[field.name] for field in fields(LivenessAttempt)]
_MEDIUM = [tables.media.c[field.name] for field in fields(Medium)]


def _of_some(table: Table, columns: Sequence[Column[Any]]) -> Select[Any]:
    key = table.c.verification_id
    return select(key, *columns).where(key.in_(bindparam("ids", expanding=True)))


def _of_one(table: Table) -> Delete:
    return delete(table).where(table.c.verification_id == bindparam("verification_id"))


# Made once: to put a statement together takes several times as long as to run it.
_GET_DETECTIONS = _of_some(tables.detection, _DETECTION)
_GET_ATTEMPTS = _of_some(tables.liveness_attempt, _ATTEMPT).order_by(
    tables.liveness_attempt.c.verification_id, tables.liveness_attempt.c.position
)
_GET_MEDIA = _of_some(tables.media, _MEDIUM)
_REMOVE_DETECTION = [_of_one(table) for table in (tables.detection, tables.liveness_attempt)]
_REMOVE_MEDIA = (
    _of_one(tables.media)
    .where(tables.media.c.kind.in_(bindparam("kinds", expanding=True)))
    .returning(tables.media.c.object_key)
)


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

    async def add(
        self, tx: Transaction, verification_id: int, detection: Detection | None, media: Collection[Medium]
    ) -> None:
        """Keeps the text of a result and names its media, where there are none yet."""
        key = {"verification_id": verification_id}
        values = asdict(detection) if detection else {}
        attempts = [key | {"position": n} | attempt for n, attempt in enumerate(values.pop("liveness_attempts", ()))]
        for table, rows in (
            (tables.detection, [key | values] if detection else []),
            (tables.liveness_attempt, attempts),
            (tables.media, [key | asdict(medium) for medium in media]),
        ):
            if rows:
                await tx.execute(insert(table), rows)

    async def add_call(self, tx: Transaction, verification_id: int, call: Call) -> None:
        """Puts a call to Tencent on record."""
        await tx.execute(insert(tables.upstream_call), {"verification_id": verification_id} | asdict(call))

    async def detections(self, tx: Transaction, ids: Collection[int]) -> Mapping[int, Detection]:
        """The texts of these verifications, by id."""
        attempts = await _grouped(tx, _GET_ATTEMPTS, ids)
        texts = await _grouped(tx, _GET_DETECTIONS, ids)
        return {
            key: Detection(
                **text, liveness_attempts=tuple(LivenessAttempt(**values) for values in attempts.get(key, ()))
            )
            for key, (text,) in texts.items()
        }

    async def media(self, tx: Transaction, ids: Collection[int]) -> Mapping[int, Sequence[Medium]]:
        """The media of these verifications, by id, in the order in which `MediaKind` names them."""
        found = await _grouped(tx, _GET_MEDIA, ids)
        return {
            key: sorted((_medium(values) for values in rows), key=lambda medium: list(MediaKind).index(medium.kind))
            for key, rows in found.items()
        }

    async def named(self, tx: Transaction, keys: Collection[str]) -> frozenset[str]:
        """Which of these object keys some row names."""
        return frozenset(await tx.scalars(select(tables.media.c.object_key).where(tables.media.c.object_key.in_(keys))))


async def _grouped(tx: Transaction, statement: Select[Any], ids: Collection[int]) -> dict[int, list[dict[str, Any]]]:
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in await tx.execute(statement, {"ids": list(ids)}):
        values = row._asdict()
        groups.setdefault(values.pop("verification_id"), []).append(values)
    return groups


def _medium(values: dict[str, Any]) -> Medium:
    return Medium(**values | {"kind": MediaKind(values["kind"])})
