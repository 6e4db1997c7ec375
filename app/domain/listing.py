"""Keyset pagination: filters of lists, positions in them, and the cursors that clients get for a position.

Each kind of list has its own cursors and rejects those of the others.
"""

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from app.domain.detection import Outcome
from app.domain.verification import State
from app.domain.webhook_endpoint import ENDPOINT_PREFIX
from app.errors import InvalidRequestError

_MAX_ID = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# The first character of the cursors of ascending lists.
_ASCENDING = "+"


class Rows(StrEnum):
    """Lists in the descending order of their ids. The value is the first character of their cursors."""

    AUDIT = "a"
    DELIVERIES = "d"


class TimeField(StrEnum):
    """The instants of a verification that a range may be about. The value is the name of the field."""

    REGISTERED = "registered_at"
    RECEIVED = "received_at"
    RETRIEVED = "retrieved_at"
    UPDATED = "updated_at"


# The letter of a cursor within a range; the list in the order of ids has none.
_LETTERS = {TimeField.REGISTERED: "g", TimeField.RECEIVED: "r", TimeField.RETRIEVED: "t", TimeField.UPDATED: "u"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRange:
    """The verifications whose `field` is at `start` or later, and before `end`; None does not limit."""

    field: TimeField
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationFilter:
    """The verifications that a list contains; None and an empty tuple do not filter. `client` None: all clients.

    `is_ascending` lists the oldest first.
    """

    client: str | None = None
    state: tuple[State, ...] = ()
    outcome: tuple[Outcome, ...] = ()
    err_code: tuple[int, ...] = ()
    rule_id: str | None = None
    subject_ref: str | None = None
    within: TimeRange | None = None
    is_ascending: bool = False

    @property
    def order(self) -> "Order":
        """The order of the list: by the field of the range, unless it is one subject's list, or by id."""
        field = self.within.field if self.within and self.subject_ref is None else None
        return Order(field, is_ascending=self.is_ascending)


@dataclass(frozen=True, slots=True)
class Order:
    """The order of a list: by an instant and then by id, or by id alone."""

    field: TimeField | None = None
    is_ascending: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """The last row of a page; `at` only if the list is in the order of an instant."""

    id: int
    at: datetime | None = None


def encode_cursor(position: Position, order: Order) -> str:
    """Returns the cursor of a position in a list of verifications."""
    prefix = _ASCENDING if order.is_ascending else ""
    if order.field is None or position.at is None:
        return _encode(f"{prefix}{position.id}")
    return _encode(f"{prefix}{_LETTERS[order.field]}{(position.at - _EPOCH) // _MICROSECOND}.{position.id}")


def decode_cursor(cursor: str, order: Order) -> Position:
    """Returns the position of a cursor made by `encode_cursor` for a list in this order.

    Raises:
        InvalidRequestError: the cursor is invalid or belongs to another list.
    """
    try:
        text = _decode(cursor).removeprefix(_ASCENDING if order.is_ascending else "")
        if order.field:
            microseconds, _, number = text.removeprefix(_LETTERS[order.field]).partition(".")
            position = Position(int(number), _EPOCH + int(microseconds) * _MICROSECOND)
        else:
            position = Position(int(text))
    except (binascii.Error, ValueError, OverflowError):
        position = Position(-1)
    _check(position.id, cursor, encode_cursor(position, order))
    return position


def encode_row_cursor(rows: Rows, row_id: int) -> str:
    """Returns the cursor of a row in a list of such rows."""
    return _encode(f"{rows}{row_id}")


def decode_row_cursor(rows: Rows, cursor: str) -> int:
    """Returns the id of a cursor made by `encode_row_cursor`.

    Raises:
        InvalidRequestError: the cursor is invalid or belongs to another list.
    """
    try:
        row_id = int(_decode(cursor).removeprefix(rows))
    except (binascii.Error, ValueError):
        row_id = -1
    _check(row_id, cursor, encode_row_cursor(rows, row_id))
    return row_id


def encode_endpoint_cursor(endpoint_id: str) -> str:
    """Returns the cursor of a webhook endpoint in a list of them."""
    return _encode(endpoint_id)


def decode_endpoint_cursor(cursor: str) -> str:
    """Returns the id of a cursor made by `encode_endpoint_cursor`.

    Raises:
        InvalidRequestError: the cursor is invalid or belongs to another list.
    """
    try:
        endpoint_id = _decode(cursor)
    except (binascii.Error, ValueError):
        endpoint_id = ""
    is_valid = endpoint_id.startswith(ENDPOINT_PREFIX) and encode_endpoint_cursor(endpoint_id) == cursor
    _check(0, cursor, cursor if is_valid else "")
    return endpoint_id


def _check(number: int, cursor: str, canonical: str) -> None:
    """Rejects ids out of range and every spelling of a position except ours."""
    if not 0 <= number <= _MAX_ID or canonical != cursor:
        raise InvalidRequestError("The cursor is invalid or belongs to another list.", code="invalid_cursor")


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str) -> str:
    return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars="-_", validate=True).decode()
