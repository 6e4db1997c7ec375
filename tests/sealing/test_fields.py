"""What is sealed opens in its own place only, and only as it was."""

import random

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from app.sealing.aead import AlteredError, fresh_key
from app.sealing.fields import Fields

PLACE = ("detection", "name", "token-1")


@given(st.none() | st.text() | st.dictionaries(st.text(), st.integers(-(2**53), 2**53)))
def test_a_value_comes_back_in_its_place(value: object) -> None:
    fields = Fields(fresh_key())

    assert fields.open(fields.seal(value, *PLACE), object, *PLACE) == value


def test_two_seals_of_one_value_have_nothing_in_common() -> None:
    fields = Fields(fresh_key())
    one, other = fields.seal("样甲", *PLACE), fields.seal("样甲", *PLACE)

    assert (one[1:] == other[1:], len(one) == len(other)) == (False, True)


def test_none_of_ten_thousand_mutations_and_transplants_is_accepted() -> None:
    dice, fields, other = random.Random(4), Fields(fresh_key()), Fields(fresh_key())
    sealed, accepted = fields.seal("000000199001011234", *PLACE), 0
    places = [("detection", "ocr_name", "token-1"), ("media", "name", "token-1"), ("detection", "name", "token-2")]
    with structlog.testing.capture_logs():
        for number in range(10_000):
            altered, place, opener = bytearray(sealed), PLACE, fields
            match number % 5:
                case 0:
                    altered[dice.randrange(len(altered))] ^= 1 << dice.randrange(8)
                case 1:
                    del altered[dice.randrange(len(altered)) :]
                case 2:
                    altered += dice.randbytes(dice.randrange(1, 40))
                case 3:
                    place = dice.choice(places)
                case _:
                    opener = other
            try:
                opener.open(bytes(altered), str, *place)
                accepted += 1
            except AlteredError:
                pass
    assert accepted == 0


def test_names_cannot_be_cut_otherwise_to_mean_the_same_place() -> None:
    fields = Fields(fresh_key())
    sealed = fields.seal("样甲", "ab", "c", "d")

    with structlog.testing.capture_logs() as logs, pytest.raises(AlteredError):
        fields.open(sealed, str, "a", "bc", "d")
    assert [entry["event"] for entry in logs] == ["altered"]
