"""Keyset pagination: filters of lists, positions in them, and the cursors that clients get for a position.

Each kind of list has its own cursors and rejects those of the others.
"""

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.domain.detection import Outcome
from app.domain.verification import State
from app.errors import InvalidRequestError

_MAX_ID = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# The prefix of a cursor's text; the list in the order of ids has none.
_AUDIT, _RECEIPT = "a", "r"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationFilter:
    """The verifications that a list contains; None does not filter. `client` None includes all clients."""

    client: str | None = None
    state: State | None = None
    outcome: Outcome | None = None
    rule_id: str | None = None
    subject_ref: str | None = None
    received_from: datetime | None = None
    received_to: datetime | None = None

    @property
    def is_by_receipt(self) -> bool:
        """Whether the list is in the order of receipt: with a range of receipt, unless it is one subject's list."""
        return (self.received_from or self.received_to) is not None and self.subject_ref is None


@dataclass(frozen=True, slots=True)
class Position:
    """The last row of a page; `received_at` only if the list is in the order of receipt."""

    id: int
    received_at: datetime | None = None


def encode_cursor(position: Position) -> str:
    """Returns the cursor of a position in a list of verifications."""
    if position.received_at is None:
        return _encode(str(position.id))
    return _encode(f"{_RECEIPT}{(position.received_at - _EPOCH) // _MICROSECOND}.{position.id}")


def decode_cursor(cursor: str, *, by_receipt: bool) -> Position:
    """Returns the position of a cursor made by `encode_cursor`.

    Raises:
        InvalidRequestError: the cursor is invalid or belongs to another list.
    """
    try:
        text = _decode(cursor)
        if by_receipt:
            received_us, _, number = text.removeprefix(_RECEIPT).partition(".")
            position = Position(int(number), _EPOCH + int(received_us) * _MICROSECOND)
        else:
            position = Position(int(text))
    except (binascii.Error, ValueError, OverflowError):
        position = Position(-1)
    _check(position.id, cursor, encode_cursor(position))
    return position


def encode_audit_cursor(audit_id: int) -> str:
    """Returns the cursor of a row in a list of audit records."""
    return _encode(f"{_AUDIT}{audit_id}")


def decode_audit_cursor(cursor: str) -> int:
    """Returns the audit id of a cursor made by `encode_audit_cursor`.

    Raises:
        InvalidRequestError: the cursor is invalid or belongs to another list.
    """
    try:
        audit_id = int(_decode(cursor).removeprefix(_AUDIT))
    except (binascii.Error, ValueError):
        audit_id = -1
    _check(audit_id, cursor, encode_audit_cursor(audit_id))
    return audit_id


def _check(number: int, cursor: str, canonical: str) -> None:
    """Rejects ids out of range and every spelling of a position except ours."""
    if not 0 <= number <= _MAX_ID or canonical != cursor:
        raise InvalidRequestError("The cursor is invalid or belongs to another list.", code="invalid_cursor")


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str) -> str:
    return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars="-_", validate=True).decode()
