"""The parts that a rule requests next."""

from collections.abc import Collection

import pytest

from app.domain.detection import InfoType, Part
from app.domain.rule import Rule

TEXT, CARD, FRAME, VIDEO = Part
ALL = frozenset(Part)


@pytest.mark.parametrize(
    ("rule", "fetched", "awaited", "separately", "turn", "expected"),
    [
        (Rule(), (), (), False, 0, "0"),
        (Rule(info_type=InfoType("134")), (), (), False, 0, "134"),
        (Rule(), (TEXT,), (), False, 0, "234"),
        (Rule(), ALL, (), False, 0, "0"),
        # The text comes first, then the others in turns.
        (Rule(text_first=True), (), (), False, 0, "1"),
        (Rule(text_first=True), (TEXT,), (), False, 0, "234"),
        (Rule(), (), (), True, 0, "1"),
        (Rule(), (TEXT,), (), True, 0, "2"),
        (Rule(), (TEXT,), (), True, 1, "3"),
        (Rule(), (TEXT, CARD), (), True, 2, "3"),
        # Awaited media come with the text, which explains them.
        (Rule(), (), (CARD, VIDEO), False, 0, "124"),
        (Rule(), (), (CARD, VIDEO), True, 1, "14"),
        (Rule(info_type=InfoType("34")), (), (VIDEO,), False, 0, "4"),
        (Rule(info_type=InfoType("13")), (), (VIDEO,), False, 0, "13"),
        (Rule(), (TEXT,), (VIDEO,), False, 0, "234"),
    ],
)
def test_next_parts(
    rule: Rule,
    fetched: Collection[Part],
    awaited: Collection[Part],
    separately: bool,
    turn: int,
    expected: str,
) -> None:
    assert rule.next_parts(fetched, awaited=awaited, separately=separately, turn=turn) == InfoType(expected)


def test_missing_parts_are_those_wanted_and_not_fetched() -> None:
    assert Rule(info_type=InfoType("14")).missing([TEXT, CARD]) == {VIDEO}


@pytest.mark.parametrize(("clients", "is_open"), [((), True), (("a", "shop"), True), (("a",), False)])
def test_rule_is_open_to_its_clients(clients: tuple[str, ...], is_open: bool) -> None:
    assert Rule(clients=frozenset(clients)).is_open_to("shop") is is_open
