"""Cursors: where a page of a list ended, as its client gets it. Each kind of list has its own, and refuses others'."""

import base64
import binascii
from datetime import UTC, datetime, timedelta

from app.domain.verification import Place
from app.errors import InvalidRequestError

_LARGEST_ID = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_AUDIT, _RECEIPT = "a", "r"  # before the number; what is in the order of verifications has nothing there


def cursor_of(place: Place) -> str:
    """Of a list of verifications."""
    if place.received_at is None:
        return _encoded(str(place.id))
    return _encoded(f"{_RECEIPT}{(place.received_at - _EPOCH) // _MICROSECOND}.{place.id}")


def place_of(cursor: str, *, by_receipt: bool) -> Place:
    """What `cursor_of` was given.

    Raises:
        InvalidRequestError: no list of this kind gave it out.
    """
    try:
        place = _place(_decoded(cursor), by_receipt=by_receipt)
    except (binascii.Error, ValueError, OverflowError):
        place = Place(-1)
    _check(place.id, cursor, cursor_of(place))
    return place


def audit_cursor_of(event_id: int) -> str:
    """Of a list of events."""
    return _encoded(f"{_AUDIT}{event_id}")


def event_id_of(cursor: str) -> int:
    """What `audit_cursor_of` was given.

    Raises:
        InvalidRequestError: no list of events gave it out.
    """
    try:
        number = int(_decoded(cursor).removeprefix(_AUDIT))
    except (binascii.Error, ValueError):
        number = -1
    _check(number, cursor, audit_cursor_of(number))
    return number


def _place(text: str, *, by_receipt: bool) -> Place:
    if not by_receipt:
        return Place(int(text))
    received_us, _, number = text.removeprefix(_RECEIPT).partition(".")
    return Place(int(number), _EPOCH + int(received_us) * _MICROSECOND)


def _check(number: int, cursor: str, again: str) -> None:
    """Many texts say the same number; only one of them is ours."""
    if not 0 <= number <= _LARGEST_ID or again != cursor:
        raise InvalidRequestError("The cursor is not one that a list gave out.", code="invalid_cursor")


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decoded(cursor: str) -> str:
    return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars="-_", validate=True).decode()
