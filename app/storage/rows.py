"""Converts rows to values of our own. A value that no version of the service writes costs only its row.

SQLite stores any value in any column, and Postgres any text, number and year. An error would cost all rows that a
statement returns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from types import UnionType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

# Few combinations of absent and present values occur.
_MAX_KNOWN = 10_000


class RowReader(Generic[T]):
    """Converts rows whose columns are the fields of a dataclass, in their order.

    Args:
        kind: the dataclass.
        replacements: the values of malformed fields that have no default and may not be None.
    """

    def __init__(self, kind: type[T], **replacements: object) -> None:
        hints = get_type_hints(kind)
        self._kind = kind
        self._names = [field.name for field in fields(kind)]
        self._types = [_types_of(hints[name]) for name in self._names]
        self._replacements = [_replacement(field, replacements) for field in fields(kind)]
        self._known: set[tuple[type, ...]] = set()

    def read(self, row: Sequence[Any]) -> tuple[T, bool]:
        """Returns the value, and whether it is intact. Malformed fields are replaced."""
        # Comparing the types of the whole row at once costs a microsecond.
        types = tuple(map(type, row))
        if is_intact := types in self._known or self._is_valid(types):
            return self._kind(**dict(zip(self._names, row, strict=True))), is_intact
        values = [
            value if type(value) in allowed else replacement
            for value, allowed, replacement in zip(row, self._types, self._replacements, strict=True)
        ]
        return self._kind(**dict(zip(self._names, values, strict=True))), is_intact

    def _is_valid(self, types: tuple[type, ...]) -> bool:
        is_valid = all(known in allowed for known, allowed in zip(types, self._types, strict=True))
        if is_valid and len(self._known) < _MAX_KNOWN:
            self._known.add(types)
        return is_valid


def _types_of(hint: object) -> frozenset[type]:
    alternatives = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return frozenset(get_origin(each) or each for each in alternatives)


def _replacement(field: Field[Any], replacements: Mapping[str, object]) -> object:
    return replacements.get(field.name, None if field.default is MISSING else field.default)
