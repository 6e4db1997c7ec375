"""A sealed value can be opened only in its own place and only unaltered."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sealing.aead import TamperedDataError, fresh_key
from app.sealing.fields import FieldCipher

PLACE = ("detection", "name", "token-1")


@given(st.none() | st.text() | st.dictionaries(st.text(), st.integers(-(2**53), 2**53)))
def test_value_is_opened_in_its_place(value: object) -> None:
    fields = FieldCipher(fresh_key())

    assert fields.open(fields.seal(value, *PLACE), object, *PLACE) == value


def test_two_seals_of_one_value_differ() -> None:
    fields = FieldCipher(fresh_key())
    one, other = fields.seal("样甲", *PLACE), fields.seal("样甲", *PLACE)

    assert (one[1:] == other[1:], len(one) == len(other)) == (False, True)


def test_none_of_10000_mutations_and_transplants_is_accepted() -> None:
    dice, fields, other = random.Random(4), FieldCipher(fresh_key()), FieldCipher(fresh_key())
    sealed, accepted = fields.seal("000000199001011234", *PLACE), 0
    places = [("detection", "ocr_name", "token-1"), ("media", "name", "token-1"), ("detection", "name", "token-2")]
    for number in range(10_000):
        tampered, place, opener = bytearray(sealed), PLACE, fields
        match number % 5:
            case 0:
                tampered[dice.randrange(len(tampered))] ^= 1 << dice.randrange(8)
            case 1:
                del tampered[dice.randrange(len(tampered)) :]
            case 2:
                tampered += dice.randbytes(dice.randrange(1, 40))
            case 3:
                place = dice.choice(places)
            case _:
                opener = other
        try:
            opener.open(bytes(tampered), str, *place)
            accepted += 1
        except TamperedDataError:
            pass
    assert accepted == 0


def test_names_split_differently_are_another_place() -> None:
    fields = FieldCipher(fresh_key())
    sealed = fields.seal("样甲", "ab", "c", "d")

    with pytest.raises(TamperedDataError):
        fields.open(sealed, str, "a", "bc", "d")


def test_missing_value_is_altered() -> None:
    with pytest.raises(TamperedDataError):
        FieldCipher(fresh_key()).open(None, str, *PLACE)
