"""Cursors: each is valid for its own list only, in one spelling."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.listing import (
    Order,
    Position,
    Rows,
    TimeField,
    TimeRange,
    VerificationFilter,
    decode_cursor,
    decode_endpoint_cursor,
    decode_row_cursor,
    encode_cursor,
    encode_endpoint_cursor,
    encode_row_cursor,
)
from app.errors import InvalidRequestError

ORDERS = [Order(field, is_ascending=is_ascending) for field in (None, *TimeField) for is_ascending in (False, True)]
IDS = st.integers(0, 2**63 - 1)
INSTANTS = st.datetimes(timezones=st.just(UTC))


@pytest.mark.parametrize("order", ORDERS, ids=repr)
@given(row_id=IDS, at=INSTANTS)
def test_cursor_leads_back_to_its_position_in_its_list_only(order: Order, row_id: int, at: datetime) -> None:
    position = Position(row_id, at if order.field else None)
    cursor = encode_cursor(position, order)

    assert decode_cursor(cursor, order) == position
    for other in (*ORDERS, None):
        if other != order:
            with pytest.raises(InvalidRequestError):
                decode_cursor(cursor, other) if other else decode_row_cursor(Rows.AUDIT, cursor)


@pytest.mark.parametrize("rows", Rows)
@given(row_id=IDS)
def test_row_cursor_leads_back_to_its_row_in_its_list_only(rows: Rows, row_id: int) -> None:
    cursor = encode_row_cursor(rows, row_id)

    assert decode_row_cursor(rows, cursor) == row_id
    for other in {*Rows} - {rows}:
        with pytest.raises(InvalidRequestError):
            decode_row_cursor(other, cursor)
    with pytest.raises(InvalidRequestError):
        decode_endpoint_cursor(cursor)


@given(st.from_regex(r"we_[0-9a-f]{24}", fullmatch=True))
def test_endpoint_cursor_leads_back_to_its_row_in_its_list_only(endpoint_id: str) -> None:
    cursor = encode_endpoint_cursor(endpoint_id)

    assert decode_endpoint_cursor(cursor) == endpoint_id
    for rows in Rows:
        with pytest.raises(InvalidRequestError):
            decode_row_cursor(rows, cursor)


@given(st.text(max_size=30))
def test_any_other_cursor_of_rows_is_rejected_or_the_only_spelling(text: str) -> None:
    for rows in Rows:
        with suppress(InvalidRequestError):
            assert encode_row_cursor(rows, decode_row_cursor(rows, text)) == text
    with suppress(InvalidRequestError):
        assert encode_endpoint_cursor(decode_endpoint_cursor(text)) == text


def spelled(text: str, order: Order | None) -> str:
    """Returns the cursor of the position that the text leads to."""
    if order is None:
        return encode_row_cursor(Rows.AUDIT, decode_row_cursor(Rows.AUDIT, text))
    return encode_cursor(decode_cursor(text, order), order)


@pytest.mark.parametrize("order", [None, *ORDERS], ids=repr)
@given(text=st.text(max_size=30) | st.binary(max_size=12).map(lambda raw: raw.hex()))
def test_any_other_text_is_rejected_or_the_only_spelling(order: Order | None, text: str) -> None:
    with suppress(InvalidRequestError):
        assert spelled(text, order) == text


@pytest.mark.parametrize(
    ("wanted", "order"),
    [
        (VerificationFilter(), Order()),
        (VerificationFilter(is_ascending=True), Order(is_ascending=True)),
        (VerificationFilter(within=TimeRange(field=TimeField.RECEIVED)), Order(TimeField.RECEIVED)),
        (VerificationFilter(within=TimeRange(field=TimeField.RECEIVED), subject_ref="x"), Order()),
    ],
)
def test_order_of_a_list_follows_its_filter(wanted: VerificationFilter, order: Order) -> None:
    assert wanted.order == order
