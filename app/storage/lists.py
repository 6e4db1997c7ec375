"""Lists: the statement of each, and the one index that it walks along.

A page is put together from walks. A walk is a stretch of one index, from where the last page ended downwards, in the
order of the list; it ends when a page is full, so that it takes the same time however much lies before and behind it.
State and outcome have few values: where a list says neither, there is a walk for each.

A walk names all columns that it is in the order of, and compares them as one. So there is one index that can do it:
Postgres, whatever it believes of the values, cannot take the primary key and look for the few rows that are wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import product
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Select,
    Subquery,
    and_,
    bindparam,
    literal_column,
    select,
    tuple_,
    union_all,
)

from app.domain.detection import Outcome
from app.domain.verification import FOR_EVER, Filter, Place, State
from app.storage.tables import NO_OUTCOME, detection
from app.storage.tables import verification as table

_EQUAL = ("client", "rule_id", "subject_ref")
_RANGE = ("received_from", "received_to")
_BEHIND_ALL = Place(2**63 - 1, FOR_EVER)
_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
_BEFORE_ID = bindparam("before_id", type_=BigInteger)
_STATEMENTS = 500  # one for each set of filters and each length of a page that anybody asks for

Index = tuple[str, Sequence[bytes]]
"""A column of digests of `detection`, and those that are looked for."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """What two lists have in common that are one statement with other parameters."""

    names: tuple[str, ...]
    state: State | None
    outcome: Outcome | None
    index: str | None
    digests: int
    by_receipt: bool
    limit: int


def page_of(
    wanted: Filter, *, limit: int, before: Place | None, index: Index | None = None
) -> tuple[Select[Any], dict[str, Any]]:
    """The statement and its parameters: at most `limit` rows of `verification`, all of them behind a place."""
    column, digests = index or (None, ())
    names = tuple(name for name in (*_EQUAL, *_RANGE) if getattr(wanted, name) is not None)
    by_receipt = wanted.is_by_receipt and index is None
    shape = _Shape(names, wanted.state, wanted.outcome, column, len(digests), by_receipt, limit)
    values = {name: getattr(wanted, name) for name in names}
    values |= {f"digest_{number}": digest for number, digest in enumerate(digests)}
    return _statement(shape), values | _bounds(wanted, before or _BEHIND_ALL, by_receipt=by_receipt)


def _bounds(wanted: Filter, before: Place, *, by_receipt: bool) -> dict[str, Any]:
    if not by_receipt:
        return {"before_id": before.id}
    ends = (before.received_at or FOR_EVER, before.id), (wanted.received_to or FOR_EVER, 0)
    before_received_at, before_id = min(ends)
    return {
        "before_id": before_id,
        "before_received_at": before_received_at,
        "received_from": wanted.received_from or _BEFORE_ALL,
    }


# Made once: to put a statement together takes several times as long as to run it.
@lru_cache(_STATEMENTS)
def _statement(shape: _Shape) -> Select[Any]:
    keys = ("received_at", "id") if shape.by_receipt else ("id",)
    walks = [walk.limit(_literal(shape.limit)).subquery() for walk in _walks(shape)]
    page = _merged(walks, keys, shape.limit) if len(walks) > 1 else walks[0]
    newest_first = (table.c[key].desc() for key in keys)
    return select(table).join(page, page.c.id == table.c.id).order_by(*newest_first)


def _merged(walks: Sequence[Subquery], keys: Sequence[str], limit: int) -> Subquery:
    all_of_them = union_all(*(select(*(walk.c[key] for key in keys)) for walk in walks)).subquery()
    newest_first = (all_of_them.c[key].desc() for key in keys)
    return select(all_of_them.c.id).order_by(*newest_first).limit(_literal(limit)).subquery()


def _walks(shape: _Shape) -> Sequence[Select[Any]]:
    if shape.index:
        return [_person_walk(shape, detection.c[shape.index], number) for number in range(shape.digests)]
    if "subject_ref" in shape.names:
        return [_subject_walk(shape)]
    if shape.by_receipt:
        return [_receipt_walk(shape, state, outcome) for state, outcome in _kinds(shape)]
    if shape.names or shape.state or shape.outcome:
        return [_kind_walk(shape, state, outcome) for state, outcome in _kinds(shape)]
    return [_down(select(table.c.id), [], [])]


def _kinds(shape: _Shape) -> Sequence[tuple[str, str]]:
    states = [shape.state] if shape.state else State
    outcomes = [shape.outcome] if shape.outcome else (*Outcome, NO_OUTCOME)
    return list(product(states, outcomes))


def _kind_walk(shape: _Shape, *kind: str) -> Select[Any]:
    names = [name for name in ("client", "rule_id") if name in shape.names]
    columns = [table.c[name] for name in (*names, "state", "outcome")]
    return _down(select(table.c.id), columns, [*map(bindparam, names), *map(_literal, kind)])


def _receipt_walk(shape: _Shape, *kind: str) -> Select[Any]:
    """In the order of receipt. An admin's walk, for which no index knows rules, meets all of them and shows one."""
    at, start = table.c.received_at, select(table.c.id, table.c.received_at)
    names = [name for name in ("client", "rule_id") if name in shape.names]
    if "client" not in names:
        start, names = _met(start, table.c.id, shape, names), []
    columns = [table.c[name] for name in (*names, "state", "outcome")]
    values = [*map(bindparam, names), *map(_literal, kind)]
    upper, lower = (bindparam(name, type_=at.type) for name in ("before_received_at", "received_from"))
    return _down(start, [*columns, at], [*values, lower], upper=[*values, upper])


def _subject_walk(shape: _Shape) -> Select[Any]:
    start = _met(select(table.c.id), table.c.id, shape, ["client", "rule_id", "state", "outcome", *_RANGE])
    return _down(start, [table.c.subject_ref], [bindparam("subject_ref")])


def _person_walk(shape: _Shape, column: Column[bytes], number: int) -> Select[Any]:
    key = detection.c.verification_id
    start = _met(select(key.label("id")), key, shape, [*_EQUAL, "state", "outcome", *_RANGE])
    return _down(start, [column], [bindparam(f"digest_{number}", type_=column.type)], key=key)


def _met(start: Select[Any], key: Column[int], shape: _Shape, names: Sequence[str]) -> Select[Any]:
    """With filters that the index does not know, so that each row is looked at.

    As a query of its own for each row: a join, or a mere condition, may be what Postgres begins with.
    """
    row = table.alias("met")
    conditions = {
        "received_from": row.c.received_at >= bindparam("received_from"),
        "received_to": row.c.received_at < bindparam("received_to"),
        **{name: row.c[name] == bindparam(name) for name in _EQUAL},
        **{name: row.c[name] == _literal(getattr(shape, name) or "") for name in ("state", "outcome")},
    }
    given = [conditions[name] for name in names if name in shape.names or getattr(shape, name, None)]
    return start.where(select(and_(*given)).where(row.c.id == key).scalar_subquery()) if given else start


def _down(
    start: Select[Any],
    columns: Sequence[Column[Any]],
    lower: Sequence[ColumnElement[Any]],
    *,
    upper: Sequence[ColumnElement[Any]] | None = None,
    key: Column[int] = table.c.id,
) -> Select[Any]:
    """Along the index of these columns and the key, from before the upper values and `before_id` down to the lower."""
    if not columns:
        return start.where(key < _BEFORE_ID).order_by(key.desc())
    is_between = tuple_(*columns, key) < tuple_(*(upper or lower), _BEFORE_ID), tuple_(*columns) >= tuple_(*lower)
    return start.where(*is_between).order_by(*(column.desc() for column in (*columns, key)))


def _literal(value: str | int) -> ColumnElement[Any]:
    """A value of ours that is part of the statement: without the limit Postgres plans for a tenth of the rows."""
    return literal_column(str(value) if isinstance(value, int) else f"'{value}'")
