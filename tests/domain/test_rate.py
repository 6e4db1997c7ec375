"""Rates: a burst, then one request per interval. Refused requests do not count."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.rate import Rate, Standing

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("200 burst 2000", Rate(SECOND // 200, 2000)),
        ("1 burst 60", Rate(SECOND, 60)),
        ("0.5", Rate(2 * SECOND, 5)),
        ("0.01", Rate(100 * SECOND, 1)),
        ("50", Rate(SECOND // 50, 500)),
        ("0", None),
        ("0.0 burst 7", None),
    ],
)
def test_text_of_a_rate_is_parsed(text: str, rate: Rate | None) -> None:
    assert Rate.parse(text) == rate


@pytest.mark.parametrize(
    "text", ["", "-1", "1 burst", "1 burst 0", "1burst2", "1e3", "inf", "1 burst 1.5", " 1", "1\n"]
)
def test_malformed_rate_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape("burst")):
        Rate.parse(text)


def test_burst_is_spent_and_refilled_one_by_one() -> None:
    rate = Rate(10 * SECOND, 2)
    state, seen = 0, []
    for seconds in (0, 0, 0, 1, 10, 10, 40, 40, 40):
        taken = rate.take(state, seconds * SECOND)
        state = state if taken is None else taken
        seen.append((taken is not None, rate.standing(state, seconds * SECOND)))

    assert seen == [
        (True, Standing(1, 0, 10)),
        (True, Standing(0, 10, 20)),
        (False, Standing(0, 10, 20)),
        (False, Standing(0, 9, 19)),
        (True, Standing(0, 10, 20)),
        (False, Standing(0, 10, 20)),
        (True, Standing(1, 0, 10)),
        (True, Standing(0, 10, 20)),
        (False, Standing(0, 10, 20)),
    ]
    assert rate.window_seconds == 20


@given(
    interval=st.integers(1, 10 * SECOND),
    burst=st.integers(1, 50),
    steps=st.lists(st.integers(0, 20 * SECOND), min_size=1, max_size=100),
)
def test_no_window_has_more_than_the_burst_and_its_refill(interval: int, burst: int, steps: list[int]) -> None:
    rate, state, now = Rate(interval, burst), 0, 0
    taken_at: list[int] = []
    for step in steps:
        now += step
        standing = rate.standing(state, now)
        taken = rate.take(state, now)
        assert (taken is not None) == (standing.remaining > 0) == (standing.next_seconds == 0)
        if taken is None:
            # The stated time suffices, and the exact one is not later.
            assert rate.take(state, now + standing.next_seconds * SECOND) is not None
            continue
        state = taken
        taken_at.append(now)

    for first, start in enumerate(taken_at):
        for last in range(first, len(taken_at)):
            assert last - first + 1 <= burst + (taken_at[last] - start) // interval
