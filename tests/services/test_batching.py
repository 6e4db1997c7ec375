"""The batcher coalesces concurrent calls; each caller gets the answer of a call on its own."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConflictError, UnavailableError
from app.services.batching import MAX_BATCH, Batcher


class Doubling:
    """Doubles numbers. An odd number gets an error as its answer; a negative one makes the batch raise."""

    def __init__(self) -> None:
        self.batches: list[Sequence[int]] = []
        self.in_flight = 0

    async def __call__(self, numbers: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(numbers)
        self.in_flight += 1
        assert self.in_flight == 1, "batches must not overlap"
        await asyncio.sleep(0.001)
        self.in_flight -= 1
        if min(numbers) < 0:
            raise ArithmeticError
        return [ConflictError("odd") if number % 2 else number * 2 for number in numbers]


async def answers_of(batcher: Batcher[int, int], numbers: Sequence[int]) -> Sequence[int | type[BaseException]]:
    answers = await asyncio.gather(*map(batcher, numbers), return_exceptions=True)
    return [type(answer) if isinstance(answer, BaseException) else answer for answer in answers]


@given(st.lists(st.integers(-5, 50), max_size=2 * MAX_BATCH + 10))
def test_each_call_gets_the_answer_of_a_call_on_its_own(numbers: list[int]) -> None:
    answers = asyncio.run(answers_of(Batcher(Doubling()), numbers))

    alone = [ArithmeticError if number < 0 else ConflictError if number % 2 else number * 2 for number in numbers]
    assert answers == alone


async def test_calls_during_a_batch_share_the_next_batch() -> None:
    doubling = Doubling()
    batcher = Batcher(doubling)
    first = asyncio.create_task(batcher(0))
    for _ in range(3):  # until the batch has begun
        await asyncio.sleep(0)
    assert doubling.in_flight

    others = await answers_of(batcher, [2, 4, 6])

    assert (await first, others) == (0, [4, 8, 12])
    assert doubling.batches == [[0], [2, 4, 6]]


async def test_batch_has_at_most_max_batch_items() -> None:
    doubling = Doubling()

    await answers_of(Batcher(doubling), [2] * (MAX_BATCH + 1))

    assert [len(batch) for batch in doubling.batches] == [MAX_BATCH, 1]


async def test_cancelled_call_does_not_cancel_the_others() -> None:
    batcher = Batcher(Doubling())
    tasks = [asyncio.create_task(batcher(number)) for number in (2, 4, 6)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[2].cancel()

    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(answer) for answer in answers] == [asyncio.CancelledError, int, asyncio.CancelledError]
    assert await batcher(8) == 16


async def test_unavailable_database_is_not_asked_again_for_each_call() -> None:
    batches = []

    async def fail(numbers: Sequence[int]) -> Sequence[int]:
        batches.append(numbers)
        raise UnavailableError("unavailable")

    assert await answers_of(Batcher(fail), [1, 2, 3]) == [UnavailableError] * 3
    assert batches == [[1, 2, 3]]


async def test_caller_gets_its_error_with_the_text() -> None:
    with pytest.raises(ConflictError, match="odd"):
        await Batcher(Doubling())(1)
