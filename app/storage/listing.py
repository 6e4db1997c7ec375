"""Lists of verifications: the statement of each page, and the index that it scans.

A page merges one or more index scans. A scan starts at the last position and follows the order of the list, in either
direction, until the page is full. Its cost does not depend on the number of rows before or after it. A list without a
state and an outcome scans each pair that exists (`app.domain.verification.STANDINGS`).

A scan compares all columns of its index as one row value. Only one index fits that comparison, so Postgres cannot
choose the primary key and filter, even if its statistics suggest it.

Filters that the index does not cover are checked row by row. These are the rule within a range, except a client's range
of receipt, and the result code within a range. In lists of a result code, a subject or a person they are all others.
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
    FromClause,
    Select,
    Subquery,
    and_,
    bindparam,
    exists,
    false,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
)

from app.domain.detection import Outcome
from app.domain.listing import Order, Position, TimeField, VerificationFilter
from app.domain.verification import NEVER, STANDINGS, State, Verification
from app.storage.column_types import NO_OUTCOME
from app.storage.tables import detection
from app.storage.tables import verification as table

_EQUAL = ("client", "rule_id", "subject_ref")
_LAST_ID = 2**63 - 1
_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
_POSITION_ID = bindparam("position_id", type_=BigInteger)
# One for each combination of filters and page length in use.
_CACHED_STATEMENTS = 500
_COLUMNS = [table.c[name] for name in Verification.__dataclass_fields__]

PersonIndex = tuple[str, Sequence[bytes]]
"""A digest column of `detection`, and the digests to find in it."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """The shared part of lists that are one statement with different parameters.

    `names` are the parameters of the filter that are given, `within` the field of its range.
    """

    names: tuple[str, ...]
    state: tuple[State, ...]
    outcome: tuple[Outcome, ...]
    err_codes: int
    within: TimeField | None
    index: str | None
    digests: int
    order: Order
    limit: int

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that the list is ordered by."""
        return (self.order.field, "id") if self.order.field else ("id",)


def page_statement(
    wanted: VerificationFilter, *, limit: int, after: Position | None, person: PersonIndex | None = None
) -> tuple[Select[Any], dict[str, Any]]:
    """Returns the statement of a page and its parameters: at most `limit` rows of `verification` after a position."""
    column, digests = person or (None, ())
    order = Order(None, is_ascending=wanted.is_ascending) if person else wanted.order
    within = wanted.within
    values: dict[str, Any] = {name: value for name in _EQUAL if (value := getattr(wanted, name)) is not None}
    if within:
        values |= {"start": within.start} if within.start else {}
        values |= {"end": within.end} if within.end else {}
    shape = _Shape(
        names=tuple(values),
        state=tuple(sorted(set(wanted.state))),
        outcome=tuple(sorted(set(wanted.outcome))),
        err_codes=len(wanted.err_code),
        within=within.field if within else None,
        index=column,
        digests=len(digests),
        order=order,
        limit=limit,
    )
    values |= {f"err_code_{number}": code for number, code in enumerate(wanted.err_code)}
    values |= {f"digest_{number}": digest for number, digest in enumerate(digests)}
    return _statement(shape), values | _bounds(wanted, after, order)


def _bounds(wanted: VerificationFilter, after: Position | None, order: Order) -> dict[str, Any]:
    """Returns where the scans start: at the position or at the near end of the range; and the far end of the range."""
    position = after or (Position(0, _BEFORE_ALL) if order.is_ascending else Position(_LAST_ID, NEVER))
    if order.field is None or wanted.within is None:
        return {"position_id": position.id}
    start, end = wanted.within.start or _BEFORE_ALL, wanted.within.end or NEVER
    last = position.at or NEVER, position.id
    position_at, position_id = max(last, (start, 0)) if order.is_ascending else min(last, (end, 0))
    far_end = end if order.is_ascending else start
    return {"position_at": position_at, "position_id": position_id, "far_end": far_end}


# Cached: building a statement takes several times as long as running it.
@lru_cache(_CACHED_STATEMENTS)
def _statement(shape: _Shape) -> Select[Any]:
    scans = [scan.limit(_literal(shape.limit)).subquery() for scan in _scans(shape)]
    if not scans:
        return select(*_COLUMNS).where(false())
    page = _merged(scans, shape) if len(scans) > 1 else scans[0]
    return select(*_COLUMNS).join(page, page.c.id == table.c.id).order_by(*_ordered(shape, table))


def _merged(scans: Sequence[Subquery], shape: _Shape) -> Subquery:
    all_rows = union_all(*(select(*(scan.c[key] for key in shape.keys)) for scan in scans)).subquery()
    return select(all_rows.c.id).order_by(*_ordered(shape, all_rows)).limit(_literal(shape.limit)).subquery()


def _ordered(shape: _Shape, rows: FromClause) -> Sequence[ColumnElement[Any]]:
    return [rows.c[key].asc() if shape.order.is_ascending else rows.c[key].desc() for key in shape.keys]


def _scans(shape: _Shape) -> Sequence[Select[Any]]:
    if shape.index:
        return [_detection_scan(shape, shape.index, f"digest_{number}") for number in range(shape.digests)]
    if "subject_ref" in shape.names:
        return [_subject_scan(shape)]
    if shape.order.field:
        return [_range_scan(shape, shape.order.field, *standing) for standing in _standings(shape)]
    if shape.err_codes:
        return [_detection_scan(shape, "err_code", f"err_code_{number}") for number in range(shape.err_codes)]
    if shape.names or shape.state or shape.outcome:
        return [_standing_scan(shape, *standing) for standing in _standings(shape)]
    return [_scan(shape, select(table.c.id), [], [])]


def _standings(shape: _Shape) -> Sequence[tuple[str, str]]:
    return [
        (state, outcome or NO_OUTCOME)
        for state, outcome in STANDINGS
        if (not shape.state or state in shape.state) and (not shape.outcome or outcome in shape.outcome)
    ]


def _standing_scan(shape: _Shape, *standing: str) -> Select[Any]:
    names = [name for name in ("client", "rule_id") if name in shape.names]
    columns = [table.c[name] for name in (*names, "state", "outcome")]
    return _scan(shape, select(table.c.id), columns, [*map(bindparam, names), *map(_literal, standing)])


def _range_scan(shape: _Shape, field: TimeField, *standing: str) -> Select[Any]:
    """Scans in the order of an instant. Only one index of instants contains the rule."""
    at = table.c[field]
    start: Select[Any] = select(table.c.id, at).where(at.is_not(None))
    names = [name for name in ("client", "rule_id") if name in shape.names]
    unindexed = ["err_code"]
    if field is not TimeField.RECEIVED or "client" not in names:
        unindexed.append("rule_id")
        names = [name for name in names if name == "client"]
    start = _filtered(start, table.c.id, shape, unindexed)
    columns = [table.c[name] for name in (*names, "state", "outcome")]
    values = [*map(bindparam, names), *map(_literal, standing)]
    position_at, far_end = (bindparam(name, type_=at.type) for name in ("position_at", "far_end"))
    return _scan(shape, start, [*columns, at], [*values, far_end], near=[*values, position_at])


def _subject_scan(shape: _Shape) -> Select[Any]:
    start = _filtered(select(table.c.id), table.c.id, shape, ["client", "rule_id", "standing", "err_code", "range"])
    return _scan(shape, start, [table.c.subject_ref], [bindparam("subject_ref")])


def _detection_scan(shape: _Shape, name: str, parameter: str) -> Select[Any]:
    """Scans an index of `detection`: the results with a digest or a result code."""
    column, key = detection.c[name], detection.c.verification_id
    filters = [*_EQUAL, "standing", "range", *(["err_code"] if shape.index else [])]
    start = _filtered(select(key.label("id")), key, shape, filters)
    return _scan(shape, start, [column], [bindparam(parameter, type_=column.type)], key=key)


def _filtered(start: Select[Any], key: Column[int], shape: _Shape, filters: Sequence[str]) -> Select[Any]:
    """Adds filters that the index does not cover, as far as they are given.

    They are a correlated subquery, not a join or a condition: Postgres might otherwise start with the filter and scan.
    """
    row = table.alias("candidate")
    conditions: list[ColumnElement[bool]] = [
        row.c[name] == bindparam(name) for name in _EQUAL if name in filters and name in shape.names
    ]
    if "standing" in filters and (shape.state or shape.outcome):
        pairs = [(_literal(state), _literal(outcome)) for state, outcome in _standings(shape)]
        is_any = [and_(row.c.state == state, row.c.outcome == outcome) for state, outcome in pairs]
        conditions.append(or_(false(), *is_any))
    if "range" in filters and shape.within:
        at = row.c[shape.within]
        conditions += [at >= bindparam("start", type_=at.type)] if "start" in shape.names else []
        conditions += [at < bindparam("end", type_=at.type)] if "end" in shape.names else []
    if "err_code" in filters and shape.err_codes:
        codes = [bindparam(f"err_code_{number}", type_=BigInteger) for number in range(shape.err_codes)]
        result = detection.alias("result")
        conditions.append(exists().where(result.c.verification_id == row.c.id, result.c.err_code.in_(codes)))
    return start.where(select(and_(*conditions)).where(row.c.id == key).scalar_subquery()) if conditions else start


def _scan(
    shape: _Shape,
    start: Select[Any],
    columns: Sequence[Column[Any]],
    far: Sequence[ColumnElement[Any]],
    *,
    near: Sequence[ColumnElement[Any]] | None = None,
    key: Column[int] = table.c.id,
) -> Select[Any]:
    """Scans the index of `columns` and the key, from after the position (`near` and its id) to `far`.

    The end of a range is not part of it, its start is.
    """
    first, end = tuple_(*columns, key), tuple_(*columns)
    position = tuple_(*(near or far), _POSITION_ID)
    if shape.order.is_ascending:
        start = start.where(key > _POSITION_ID if not columns else first > position)
        if columns:
            start = start.where(end < tuple_(*far) if near else end <= tuple_(*far))
        return start.order_by(*columns, key)
    start = start.where(key < _POSITION_ID if not columns else first < position)
    if columns:
        start = start.where(end >= tuple_(*far))
    return start.order_by(*(column.desc() for column in (*columns, key)))


def _literal(value: str | int) -> ColumnElement[Any]:
    """Puts one of our own values into the statement. With the limit as a parameter, Postgres plans for a tenth."""
    return literal_column(str(value) if isinstance(value, int) else f"'{value}'")
