"""Lists of verifications: the statement of each page, and the index that it scans.

A page merges one or more index scans. A scan starts at the last position and descends in the order of the list until
the page is full, so its cost does not depend on the number of rows before or after it. A list without a state and an
outcome scans each pair that exists (`app.domain.verification.STANDINGS`).

A scan compares all columns of its index as one row value. Only one index fits that comparison, so Postgres cannot
choose the primary key and filter, even if its statistics suggest it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Select,
    Subquery,
    and_,
    bindparam,
    false,
    literal_column,
    select,
    tuple_,
    union_all,
)

from app.domain.detection import Outcome
from app.domain.listing import Position, VerificationFilter
from app.domain.verification import NEVER, STANDINGS, State, Verification
from app.storage.tables import NO_OUTCOME, detection
from app.storage.tables import verification as table

_EQUAL = ("client", "rule_id", "subject_ref")
_RANGE = ("received_from", "received_to")
_AFTER_ALL = Position(2**63 - 1, NEVER)
_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
_BEFORE_ID = bindparam("before_id", type_=BigInteger)
# One for each combination of filters and page length in use.
_CACHED_STATEMENTS = 500
_COLUMNS = [table.c[name] for name in Verification.__dataclass_fields__]

PersonIndex = tuple[str, Sequence[bytes]]
"""A digest column of `detection`, and the digests to find in it."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """The shared part of lists that are one statement with different parameters."""

    names: tuple[str, ...]
    state: State | None
    outcome: Outcome | None
    index: str | None
    digests: int
    by_receipt: bool
    limit: int


def page_statement(
    wanted: VerificationFilter, *, limit: int, before: Position | None, person: PersonIndex | None = None
) -> tuple[Select[Any], dict[str, Any]]:
    """Returns the statement of a page and its parameters: at most `limit` rows of `verification` after a position."""
    column, digests = person or (None, ())
    names = tuple(name for name in (*_EQUAL, *_RANGE) if getattr(wanted, name) is not None)
    by_receipt = wanted.is_by_receipt and person is None
    shape = _Shape(names, wanted.state, wanted.outcome, column, len(digests), by_receipt, limit)
    values = {name: getattr(wanted, name) for name in names}
    values |= {f"digest_{number}": digest for number, digest in enumerate(digests)}
    return _statement(shape), values | _bounds(wanted, before or _AFTER_ALL, by_receipt=by_receipt)


def _bounds(wanted: VerificationFilter, before: Position, *, by_receipt: bool) -> dict[str, Any]:
    if not by_receipt:
        return {"before_id": before.id}
    ends = (before.received_at or NEVER, before.id), (wanted.received_to or NEVER, 0)
    before_received_at, before_id = min(ends)
    return {
        "before_id": before_id,
        "before_received_at": before_received_at,
        "received_from": wanted.received_from or _BEFORE_ALL,
    }


# Cached: building a statement takes several times as long as running it.
@lru_cache(_CACHED_STATEMENTS)
def _statement(shape: _Shape) -> Select[Any]:
    keys = ("received_at", "id") if shape.by_receipt else ("id",)
    scans = [scan.limit(_literal(shape.limit)).subquery() for scan in _scans(shape)]
    if not scans:
        return select(*_COLUMNS).where(false())
    page = _merged(scans, keys, shape.limit) if len(scans) > 1 else scans[0]
    newest_first = (table.c[key].desc() for key in keys)
    return select(*_COLUMNS).join(page, page.c.id == table.c.id).order_by(*newest_first)


def _merged(scans: Sequence[Subquery], keys: Sequence[str], limit: int) -> Subquery:
    all_rows = union_all(*(select(*(scan.c[key] for key in keys)) for scan in scans)).subquery()
    newest_first = (all_rows.c[key].desc() for key in keys)
    return select(all_rows.c.id).order_by(*newest_first).limit(_literal(limit)).subquery()


def _scans(shape: _Shape) -> Sequence[Select[Any]]:
    if shape.index:
        return [_person_scan(shape, detection.c[shape.index], number) for number in range(shape.digests)]
    if "subject_ref" in shape.names:
        return [_subject_scan(shape)]
    if shape.by_receipt:
        return [_receipt_scan(shape, state, outcome) for state, outcome in _standings(shape)]
    if shape.names or shape.state or shape.outcome:
        return [_standing_scan(shape, state, outcome) for state, outcome in _standings(shape)]
    return [_descend(select(table.c.id), [], [])]


def _standings(shape: _Shape) -> Sequence[tuple[str, str]]:
    return [
        (state, outcome or NO_OUTCOME)
        for state, outcome in STANDINGS
        if shape.state in {None, state} and shape.outcome in {None, outcome}
    ]


def _standing_scan(shape: _Shape, *standing: str) -> Select[Any]:
    names = [name for name in ("client", "rule_id") if name in shape.names]
    columns = [table.c[name] for name in (*names, "state", "outcome")]
    return _descend(select(table.c.id), columns, [*map(bindparam, names), *map(_literal, standing)])


def _receipt_scan(shape: _Shape, *standing: str) -> Select[Any]:
    """Scans in the order of receipt. No index of admins contains rules, so their scan filters by rule."""
    at, start = table.c.received_at, select(table.c.id, table.c.received_at)
    names = [name for name in ("client", "rule_id") if name in shape.names]
    if "client" not in names:
        start, names = _filtered(start, table.c.id, shape, names), []
    columns = [table.c[name] for name in (*names, "state", "outcome")]
    values = [*map(bindparam, names), *map(_literal, standing)]
    upper, lower = (bindparam(name, type_=at.type) for name in ("before_received_at", "received_from"))
    return _descend(start, [*columns, at], [*values, lower], upper=[*values, upper])


def _subject_scan(shape: _Shape) -> Select[Any]:
    names = ["client", "rule_id", "state", "outcome", *_RANGE]
    start = _filtered(select(table.c.id), table.c.id, shape, names)
    return _descend(start, [table.c.subject_ref], [bindparam("subject_ref")])


def _person_scan(shape: _Shape, column: Column[bytes], number: int) -> Select[Any]:
    key = detection.c.verification_id
    start = _filtered(select(key.label("id")), key, shape, [*_EQUAL, "state", "outcome", *_RANGE])
    return _descend(start, [column], [bindparam(f"digest_{number}", type_=column.type)], key=key)


def _filtered(start: Select[Any], key: Column[int], shape: _Shape, names: Sequence[str]) -> Select[Any]:
    """Adds filters that the index does not cover.

    They are a correlated subquery, not a join or a condition: Postgres might otherwise start with the filter and scan.
    """
    row = table.alias("candidate")
    conditions = {
        "received_from": row.c.received_at >= bindparam("received_from"),
        "received_to": row.c.received_at < bindparam("received_to"),
        **{name: row.c[name] == bindparam(name) for name in _EQUAL},
        **{name: row.c[name] == _literal(getattr(shape, name) or "") for name in ("state", "outcome")},
    }
    given = [conditions[name] for name in names if name in shape.names or getattr(shape, name, None)]
    return start.where(select(and_(*given)).where(row.c.id == key).scalar_subquery()) if given else start


def _descend(
    start: Select[Any],
    columns: Sequence[Column[Any]],
    lower: Sequence[ColumnElement[Any]],
    *,
    upper: Sequence[ColumnElement[Any]] | None = None,
    key: Column[int] = table.c.id,
) -> Select[Any]:
    """Scans the index of `columns` and the key downwards, from below (`upper`, `before_id`) to `lower`."""
    if not columns:
        return start.where(key < _BEFORE_ID).order_by(key.desc())
    is_between = tuple_(*columns, key) < tuple_(*(upper or lower), _BEFORE_ID), tuple_(*columns) >= tuple_(*lower)
    return start.where(*is_between).order_by(*(column.desc() for column in (*columns, key)))


def _literal(value: str | int) -> ColumnElement[Any]:
    """Puts one of our own values into the statement. With the limit as a parameter, Postgres plans for a tenth."""
    return literal_column(str(value) if isinstance(value, int) else f"'{value}'")
