"""Rows of verifications by the million, made by Postgres itself, and real texts for those of them that are read."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import asyncpg
from sqlalchemy import URL, bindparam, insert, update

from app.domain.detection import Detection, Medium
from app.domain.detection import MediaKind as Kind
from app.domain.verification import State, Verification
from app.faceid.decode import decode_detect_info
from app.faceid.lifter import LiftedBody, Sink
from app.factory import Services
from app.storage import tables
from app.storage.database import Transaction
from app.storage.results import SealedText
from benchmarks.upstream import answer_of

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SPAN = timedelta(days=180)
BIG, SMALL = "big", "small"
RARE_SUBJECT, RARE_RULE = "subject-rare", "rule-rare"
RULE = "7"

_LISTS_INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE indexname LIKE 'ix\\_%' AND schemaname = 'public'"

# Of `step` rows in a row, a few are rare, however many rows there are; the oldest fifth is erased.
_VERIFICATIONS = """
INSERT INTO verification (
    id, client, biz_token, rule_id, subject_ref, sealed_key, state, outcome, provisional, created_at, registered_at,
    received_at, retrieved_at, deadline_at, due_at, claim, leased, woken, attempts, failures, looks, last_request_id,
    retain_until, retain_media_until, erase_at, erased_at
)
SELECT
    i, client, biz_token, rule_id, subject_ref,
    CASE WHEN state <> 'erased' THEN decode(repeat(md5(biz_token), 4), 'hex') END, state,
    CASE WHEN state IN ('retrieved', 'erased') THEN outcome ELSE '' END, false, at - interval '2 minutes',
    at - interval '2 minutes', received_at, CASE WHEN state = 'retrieved' THEN received_at + interval '1 second' END,
    at + interval '7 days', CASE WHEN state = 'pending' THEN at + interval '1 hour' END, 1, false, false, 1, 0, 0,
    md5(biz_token), at + interval '180 days', at + interval '30 days',
    CASE WHEN state <> 'erased' THEN at + interval '30 days' END, CASE WHEN state = 'erased' THEN at END
FROM (
    SELECT
        i,
        gen_random_uuid()::text AS biz_token,
        CASE
            WHEN turn IN (2, 3) THEN 'small' WHEN turn < 7 OR c < 0.8 THEN 'big' WHEN c < 0.9 THEN 'shop'
            WHEN c < 0.96 THEN 'fund' ELSE 'desk'
        END AS client,
        CASE turn WHEN 1 THEN '7' WHEN 5 THEN 'rule-rare' ELSE (1 + floor(r * 10))::int::text END AS rule_id,
        CASE WHEN turn = 4 THEN 'subject-rare' WHEN c < 0.4 THEN 'subject-' || (i / 3) END AS subject_ref,
        CASE
            WHEN i <= $2 / 5 THEN 'erased' WHEN turn IN (1, 6) THEN 'retrieved' WHEN i > $2 * 0.99 THEN 'pending'
            WHEN s < 0.04 THEN 'failed' WHEN s < 0.05 THEN 'expired' ELSE 'retrieved'
        END AS state,
        CASE WHEN turn = 1 THEN 'unfinished' WHEN o < 0.12 THEN 'failed' ELSE 'passed' END AS outcome,
        at,
        CASE WHEN o > 0.99 THEN NULL WHEN r < 0.05 THEN at + o * interval '1 day' ELSE at + o * interval '1 minute' END
            AS received_at
    FROM (
        SELECT
            i, i % $3 AS turn, $1::timestamptz + interval '180 days' * (i::float8 / $2) AS at,
            random() AS c, random() AS r, random() AS s, random() AS o
        FROM generate_series(1, $2::bigint) AS i
    ) AS drawn
) AS told
"""
_DETECTIONS = """
INSERT INTO detection (
    verification_id, err_code, err_msg, live_status, live_msg, compare_status, compare_msg, sim, masked, id_card_index,
    person_index
)
SELECT
    id, 0, '成功', 0, '成功', 0, '成功', '96.42', decode(repeat(md5(biz_token), 12), 'hex'),
    CASE WHEN id % $1 = 6 THEN $2 ELSE '\\x00000001'::bytea || sha256(biz_token::bytea) END,
    CASE WHEN id % $1 = 6 THEN $3 ELSE '\\x00000001'::bytea || sha256(md5(biz_token)::bytea) END
FROM verification WHERE state = 'retrieved'
"""


@dataclass(frozen=True, slots=True)
class Filled:
    """A database with so many rows; what is rare of them is there `rare` times."""

    services: Services
    rows: int
    rare: int

    def id_at(self, depth: float) -> int:
        """About the number of the row at this depth: 0 for the newest, 1 for the oldest."""
        return round(self.rows * (1 - depth))


async def fill(url: URL, rows: int, rare: int, indexes: Sequence[bytes]) -> None:
    """Fills a database of our schema; the digests are of the one person who is there `rare` times."""
    connection = await asyncpg.connect(_address(url), timeout=60)
    try:
        for setting in (
            "synchronous_commit = off",
            "maintenance_work_mem = '1GB'",
            "session_replication_role = replica",
        ):
            await connection.execute(f"SET {setting}")
        dropped = await connection.fetch(_LISTS_INDEXES)
        for index in dropped:
            await connection.execute(f'DROP INDEX "{index["indexname"]}"')
        await connection.execute("SELECT setseed(0.5)")
        await connection.execute(_VERIFICATIONS, BEGIN, rows, rows // rare)
        await connection.execute(_DETECTIONS, rows // rare, *indexes)
        for index in dropped:
            await connection.execute(index["indexdef"])
        for table in ("verification", "detection"):
            await connection.execute(f"VACUUM (ANALYZE) {table}")
    finally:
        await connection.close()


def _address(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


async def dress(services: Services, verifications: Collection[Verification]) -> None:
    """Gives them real keys, and to those that are retrieved the text and the media of a real result."""
    detection, _ = decode_detect_info(LiftedBody(answer_of(0, parts=frozenset("1")), {}, _no_sink))
    detection = detection or Detection()
    async with services.database.write(seconds=None) as tx:
        for verification in verifications:
            if verification.sealed_key is None:
                continue
            key = services.vault.new_key(verification.client, verification.biz_token)
            await tx.execute(_SEALED_KEY, {"row_id": verification.id, "new_key": key})
            if verification.state is State.RETRIEVED:
                text = services.vault.seal_text(replace(verification, sealed_key=key), detection)
                await _dress(tx, verification, text)


async def _dress(tx: Transaction, verification: Verification, text: SealedText) -> None:
    of_row = {"verification_id": verification.id}
    values = {name: value for name, value in text.values.items() if not name.endswith("_index")}
    await tx.execute(_TEXT, {"row_id": verification.id, **values})
    attempts = [of_row | {"position": position, **columns} for position, columns in enumerate(text.attempts)]
    await tx.execute(insert(tables.liveness_attempt), attempts)
    await tx.execute(insert(tables.media), [of_row | _medium(verification, kind) for kind in _KINDS])


_KINDS = (Kind.ID_CARD_FRONT, Kind.ID_CARD_BACK, Kind.BEST_FRAME, Kind.LIVENESS_VIDEO)
_SEALED_KEY = (
    update(tables.verification)
    .where(tables.verification.c.id == bindparam("row_id"))
    .values(sealed_key=bindparam("new_key"))
)
_TEXT = update(tables.detection).where(tables.detection.c.verification_id == bindparam("row_id"))


def _no_sink() -> Sink:
    raise AssertionError("There are no media in a text.")


def _medium(verification: Verification, kind: Kind) -> dict[str, object]:
    medium = Medium(
        kind=kind,
        object_key=f"{verification.biz_token}/{kind}",
        content_type="video/mp4" if kind is Kind.LIVENESS_VIDEO else "image/jpeg",
        size_bytes=200_000,
        sha256="0" * 64,
        sealed_key=bytes(96),
        stored_at=BEGIN,
    )
    return tables.columns_of(medium)
