"""The types of columns. Each reads a value that no version of the service writes as `IMPOSSIBLE`."""

from collections.abc import Callable, Collection
from datetime import UTC, date, datetime
from enum import IntEnum, StrEnum
from ipaddress import ip_network
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Date,
    DateTime,
    Dialect,
    Integer,
    String,
    TypeDecorator,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from app.domain.api_key import Network
from app.domain.detection import Outcome, Part
from app.domain.media import MediaKind, UnreadableMedia, UnreadableReason
from app.domain.verification import NEVER

IMPOSSIBLE = object()
"""The value of a column that no version of the service writes: see `app.storage.rows`."""

# The instants that can be read end with `NEVER`.
_FIRST = datetime(1900, 1, 1, tzinfo=UTC)

T = TypeVar("T")


class Checked(TypeDecorator[T]):
    """A type that reads what it cannot convert as `IMPOSSIBLE`. An error would cost all rows of the statement."""

    impl: Any = String
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Returns the function that converts from the driver."""
        read = super().result_processor(dialect, coltype)

        def checked(value: object) -> object:
            try:
                return read(value) if read else value
            except (ValueError, TypeError, AttributeError, OverflowError):
                return IMPOSSIBLE

        return checked


class _InCalendar(FunctionElement[Any]):
    """An instant, or NULL if it cannot be read: outside Python's calendar, Postgres stores it, but its driver fails."""

    inherit_cache = True

    def __init__(self, column: ColumnElement[Any]) -> None:
        super().__init__(column)
        self.type = column.type


@compiles(_InCalendar)
def _compile_plain(element: _InCalendar, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(_InCalendar, "postgresql")
def _compile_limited(element: _InCalendar, compiler: SQLCompiler, **options: Any) -> str:
    at = compiler.process(element.clauses, **options)
    return f"CASE WHEN {at} BETWEEN '{_FIRST}' AND '{NEVER}' THEN {at} END"


class UtcDateTime(Checked[datetime]):
    """An aware instant in UTC. SQLite stores no time zone, so it is removed on the way in and added on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Returns the expression that is read instead of the column."""
        return _InCalendar(column)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Converts for the driver."""
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Converts from the driver."""
        if value is None or dialect.name != "sqlite":
            return value and value.astimezone(UTC)
        at = value.replace(tzinfo=UTC)
        if not _FIRST <= at <= NEVER:
            raise ValueError
        return at


NO_OUTCOME = ""


class OutcomeType(Checked[Outcome]):
    """An outcome. None is stored as an empty text, which an index can find like any other (`app.storage.listing`)."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, _: Dialect) -> str:
        """Converts for the driver."""
        return value or NO_OUTCOME

    def process_result_value(self, value: str | None, _: Dialect) -> Outcome | None:
        """Converts from the driver."""
        return Outcome(value) if value else None


class EnumType(Checked[StrEnum]):
    """A member of a `StrEnum`, stored as its value."""

    impl = String
    cache_ok = True

    def __init__(self, kind: type[StrEnum]) -> None:
        super().__init__()
        self.kind = kind

    def process_result_value(self, value: str | None, _: Dialect) -> StrEnum | None:
        """Converts from the driver. The other direction needs nothing: a member is a text."""
        return None if value is None else self.kind(value)


class IntEnumType(Checked[IntEnum]):
    """A member of an `IntEnum`, stored as its number."""

    impl = Integer
    cache_ok = True

    def __init__(self, kind: type[IntEnum]) -> None:
        super().__init__()
        self.kind = kind

    def process_result_value(self, value: int | None, _: Dialect) -> IntEnum | None:
        """Converts from the driver. The other direction needs nothing: a member is a number."""
        return None if value is None else self.kind(value)


class PartsType(Checked[frozenset[Part]]):
    """A set of parts, stored as the digits of `InfoType` in ascending order."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Collection[Part] | None, _: Dialect) -> str:
        """Converts for the driver."""
        return "".join(sorted(value or ()))

    def process_result_value(self, value: str | None, _: Dialect) -> frozenset[Part]:
        """Converts from the driver."""
        return frozenset(map(Part, value or ""))


class UnreadableType(Checked[tuple[UnreadableMedia, ...]]):
    """Unreadable media, stored as `kind=reason` separated by blanks."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Collection[UnreadableMedia] | None, _: Dialect) -> str:
        """Converts for the driver."""
        return " ".join(f"{item.kind}={item.reason}" for item in value or ())

    def process_result_value(self, value: str | None, _: Dialect) -> tuple[UnreadableMedia, ...]:
        """Converts from the driver."""
        pairs = (pair.split("=") for pair in (value or "").split())
        return tuple(UnreadableMedia(MediaKind(kind), UnreadableReason(reason)) for kind, reason in pairs)


class CodeType(Checked[int]):
    """A result code. None is stored as an empty text, so it can be part of a primary key."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: int | None, _: Dialect) -> str:
        """Converts for the driver."""
        return "" if value is None else str(value)

    def process_result_value(self, value: str | None, _: Dialect) -> int | None:
        """Converts from the driver."""
        return int(value) if value else None


class NamesType(Checked[frozenset[str]]):
    """A set of names without blanks, stored in ascending order and separated by blanks."""

    impl = String
    cache_ok = True

    def __init__(self, kind: type[StrEnum] | type[str]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: Collection[str] | None, _: Dialect) -> str:
        """Converts for the driver."""
        return " ".join(sorted(value or ()))

    def process_result_value(self, value: str | None, _: Dialect) -> frozenset[str]:
        """Converts from the driver."""
        return frozenset(map(self.kind, str.split(value or "")))


class NetworksType(Checked[tuple[Network, ...]]):
    """Networks, separated by blanks."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Collection[Network] | None, _: Dialect) -> str:
        """Converts for the driver."""
        return " ".join(map(str, value or ()))

    def process_result_value(self, value: str | None, _: Dialect) -> tuple[Network, ...]:
        """Converts from the driver."""
        return tuple(map(ip_network, str.split(value or "")))


class DayType(Checked[date]):
    """A day."""

    impl = Date
    cache_ok = True


# SQLite assigns ids only if the primary key is exactly an INTEGER.
BigId = BigInteger().with_variant(Integer, "sqlite")
