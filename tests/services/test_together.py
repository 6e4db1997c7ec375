"""Who asks at the same time is answered together, and each of them as if alone."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConflictError, UnavailableError
from app.services.together import MOST_TOGETHER, Together


class Doubling:
    """Doubles numbers: odd ones are refused, and from a negative one it breaks down."""

    def __init__(self) -> None:
        self.batches: list[Sequence[int]] = []
        self.under_way = 0

    async def __call__(self, numbers: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(numbers)
        self.under_way += 1
        assert self.under_way == 1, "one at a time"
        await asyncio.sleep(0.001)
        self.under_way -= 1
        if min(numbers) < 0:
            raise ArithmeticError
        return [ConflictError("odd") if number % 2 else number * 2 for number in numbers]


async def answers_of(ask: Together[int, int], numbers: Sequence[int]) -> Sequence[int | type[BaseException]]:
    answers = await asyncio.gather(*map(ask, numbers), return_exceptions=True)
    return [type(answer) if isinstance(answer, BaseException) else answer for answer in answers]


@given(st.lists(st.integers(-5, 50), max_size=2 * MOST_TOGETHER + 10))
def test_each_is_answered_as_if_alone(numbers: list[int]) -> None:
    answers = asyncio.run(answers_of(Together(Doubling()), numbers))

    alone = [ArithmeticError if number < 0 else ConflictError if number % 2 else number * 2 for number in numbers]
    assert answers == alone


async def test_whoever_comes_while_others_are_answered_shares_the_next_turn() -> None:
    doubling = Doubling()
    ask = Together(doubling)
    first = asyncio.create_task(ask(0))
    for _ in range(3):  # it has begun
        await asyncio.sleep(0)
    assert doubling.under_way

    others = await answers_of(ask, [2, 4, 6])

    assert (await first, others) == (0, [4, 8, 12])
    assert doubling.batches == [[0], [2, 4, 6]]


async def test_no_turn_is_shared_by_more_than_so_many() -> None:
    doubling = Doubling()

    await answers_of(Together(doubling), [2] * (MOST_TOGETHER + 1))

    assert [len(batch) for batch in doubling.batches] == [MOST_TOGETHER, 1]


async def test_who_gives_up_does_not_take_the_others_along() -> None:
    ask = Together(Doubling())
    tasks = [asyncio.create_task(ask(number)) for number in (2, 4, 6)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[2].cancel()

    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(answer) for answer in answers] == [asyncio.CancelledError, int, asyncio.CancelledError]
    assert await ask(8) == 16


async def test_when_the_database_does_not_answer_nobody_waits_for_it_again() -> None:
    asked = []

    async def fail(numbers: Sequence[int]) -> Sequence[int]:
        asked.append(numbers)
        raise UnavailableError("away")

    assert await answers_of(Together(fail), [1, 2, 3]) == [UnavailableError] * 3
    assert asked == [[1, 2, 3]]


async def test_an_error_reaches_each_with_what_it_says() -> None:
    with pytest.raises(ConflictError, match="odd"):
        await Together(Doubling())(1)
