"""What was retrieved: the text of a result, its liveness attempts, the rows that name its media, the calls it took."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Select, delete, insert, select

from app.domain.detection import Detection, LivenessAttempt, MediaKind, Medium
from app.domain.verification import Call
from app.storage import tables
from app.storage.database import Transaction

_DETECTION = [tables.detection.c[field.name] for field in fields(Detection) if field.name != "liveness_attempts"]
_ATTEMPT = [tables.liveness_attempt.c[field.name] for field in fields(LivenessAttempt)]
_MEDIUM = [tables.media.c[field.name] for field in fields(Medium)]


class ResultStore:
    """The tables of results. The caller brings the transaction."""

    async def replace_detection(self, tx: Transaction, verification_id: int, detection: Detection) -> None:
        """Puts the text of a result in the place of an older one."""
        for table in (tables.detection, tables.liveness_attempt):
            await tx.execute(delete(table).where(table.c.verification_id == verification_id))
        values = asdict(detection)
        attempts = values.pop("liveness_attempts")
        await tx.execute(insert(tables.detection).values(verification_id=verification_id, **values))
        if attempts:
            rows = [
                {"verification_id": verification_id, "position": position, **attempt}
                for position, attempt in enumerate(attempts)
            ]
            await tx.execute(insert(tables.liveness_attempt), rows)

    async def replace_media(self, tx: Transaction, verification_id: int, media: Collection[Medium]) -> Sequence[str]:
        """Names media in the place of older ones of the same kinds; answers the object keys that are named no more."""
        if not media:
            return []
        table = tables.media
        outdated = await tx.scalars(
            delete(table)
            .where(table.c.verification_id == verification_id, table.c.kind.in_([medium.kind for medium in media]))
            .returning(table.c.object_key)
        )
        keys = outdated.all()
        await tx.execute(insert(table), [{"verification_id": verification_id, **asdict(medium)} for medium in media])
        return keys

    async def add_call(self, tx: Transaction, verification_id: int, call: Call) -> None:
        """Puts a call to Tencent on record."""
        await tx.execute(insert(tables.upstream_call).values(verification_id=verification_id, **asdict(call)))

    async def detections(self, tx: Transaction, ids: Collection[int]) -> Mapping[int, Detection]:
        """The texts of these verifications, by id."""
        table = tables.liveness_attempt
        statement = select(table.c.verification_id, *_ATTEMPT).where(table.c.verification_id.in_(ids))
        attempts = await _grouped(tx, statement.order_by(table.c.verification_id, table.c.position))
        table = tables.detection
        texts = await _grouped(tx, select(table.c.verification_id, *_DETECTION).where(table.c.verification_id.in_(ids)))
        return {
            key: Detection(
                **text, liveness_attempts=tuple(LivenessAttempt(**values) for values in attempts.get(key, ()))
            )
            for key, (text,) in texts.items()
        }

    async def media(self, tx: Transaction, ids: Collection[int]) -> Mapping[int, Sequence[Medium]]:
        """The media of these verifications, by id, in the order in which `MediaKind` names them."""
        table = tables.media
        found = await _grouped(tx, select(table.c.verification_id, *_MEDIUM).where(table.c.verification_id.in_(ids)))
        return {
            key: sorted((_medium(values) for values in rows), key=lambda medium: list(MediaKind).index(medium.kind))
            for key, rows in found.items()
        }

    async def named(self, tx: Transaction, keys: Collection[str]) -> frozenset[str]:
        """Which of these object keys some row names."""
        return frozenset(await tx.scalars(select(tables.media.c.object_key).where(tables.media.c.object_key.in_(keys))))


async def _grouped(tx: Transaction, statement: Select[Any]) -> dict[int, list[dict[str, Any]]]:
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in await tx.execute(statement):
        values = row._asdict()
        groups.setdefault(values.pop("verification_id"), []).append(values)
    return groups


def _medium(values: dict[str, Any]) -> Medium:
    return Medium(**values | {"kind": MediaKind(values["kind"])})
