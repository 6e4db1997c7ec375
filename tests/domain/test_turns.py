"""The turns of clients: all are served, however much one of them has."""

from collections import Counter
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.turns import Turn, in_order
from app.domain.verification import Priority

A, B, C = (Turn(Priority.FRESH, client) for client in "abc")
A_RETRY, B_POLL = Turn(Priority.RETRY, "a"), Turn(Priority.POLL, "b")
TURNS = st.sets(st.builds(Turn, st.sampled_from(Priority), st.sampled_from("abcdefghijklm")))


@pytest.mark.parametrize(
    ("due", "number", "ordered"),
    [
        ([], 1, []),
        ([B, A, C], 1, [[B, C, A]]),
        ([B, A, C], 2, [[C, A, B]]),
        ([B, A, C], 3, [[A, B, C]]),
        # The more urgent first, except in every eighth claim.
        ([B_POLL, A, A_RETRY], 1, [[A], [A_RETRY], [B_POLL]]),
        ([B_POLL, A, A_RETRY], 8, [[B_POLL], [A_RETRY], [A]]),
    ],
)
def test_turns_rotate_within_their_priority(due: Collection[Turn], number: int, ordered: object) -> None:
    assert in_order(due, number) == ordered


@given(TURNS, st.integers(1, 1000))
def test_each_turn_comes_once_up_to_32(due: set[Turn], number: int) -> None:
    groups = in_order(due, number)

    flat = [turn for group in groups for turn in group]
    assert len(flat) == len(set(flat)) == min(len(due), 32)
    assert set(flat) <= due
    assert all(len({turn.priority for turn in group}) == 1 for group in groups)


@given(st.integers(1, 13), st.integers(1, 13))
def test_every_client_is_the_first_equally_often(fresh: int, retries: int) -> None:
    due = [Turn(Priority.FRESH, str(n)) for n in range(fresh)] + [Turn(Priority.RETRY, str(n)) for n in range(retries)]

    first = Counter(in_order(due, number)[0][0] for number in range(1, 8 * fresh * retries + 1))

    assert {first[turn] for turn in due if turn.priority is Priority.FRESH} == {7 * retries}
    assert {first[turn] for turn in due if turn.priority is Priority.RETRY} == {fresh}
