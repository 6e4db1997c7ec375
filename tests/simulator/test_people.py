"""Invented people are consistent and reproducible."""

import re
from datetime import UTC, datetime

import pytest

from simulator.people import person_of, with_check_character

TOKENS = [f"token-{number}" for number in range(500)]


def test_person_of_a_token_is_the_same_at_every_call() -> None:
    assert person_of("anna") == person_of("anna") != person_of("bob")


@pytest.mark.parametrize(
    ("digits", "checked"),
    [
        # The sample number of the standard, GB 11643.
        ("11010519491231002", "11010519491231002X"),
        ("00000019900101001", "000000199001010018"),
    ],
)
def test_check_character_follows_the_standard(digits: str, checked: str) -> None:
    assert with_check_character(digits) == checked


def test_people_are_consistent_and_belong_to_no_place() -> None:
    for person in map(person_of, TOKENS):
        assert person.id_card == with_check_character(person.id_card[:17])
        assert person.id_card[:14] == f"000000{person.birth:%Y%m%d}"
        assert person.gender == ("男" if int(person.id_card[16]) % 2 else "女")
        assert re.fullmatch(r"[样测虚拟仿]\w\w", person.name)
        assert re.fullmatch(r"20\d\d\.\d\d\.\d\d-(20\d\d\.\d\d\.\d\d|长期)", person.valid_date)
        assert 70 <= person.similarity < 100
        assert datetime.fromtimestamp(person.first_attempt_ms / 1000, UTC).year == 2024


def test_id_numbers_are_unique_and_some_cards_are_lifelong() -> None:
    people = [person_of(token) for token in TOKENS]

    assert len({person.id_card for person in people}) == len(people)
    assert 0 < sum(person.valid_date.endswith("长期") for person in people) < len(people)
