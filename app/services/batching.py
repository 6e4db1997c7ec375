"""Coalesces concurrent calls into one batched call.

A transaction waits for the disk or the network, and one more row costs far less than one more statement. So one batch
runs at a time, and the calls that arrive during it form the next one. A call that arrives while nothing is in flight
starts immediately; batching only happens under concurrency.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from app.errors import UnavailableError

MAX_BATCH = 100

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Turns a function of many items into a function of one.

    Args:
        run: returns one result per item, in their order. An exception instead of a result is raised to that item's
            caller. If `run` raises, each item runs again alone, unless the database does not answer.
    """

    def __init__(self, run: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]]) -> None:
        self._run = run
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """Returns the result for one item. Cancelling this call does not affect the others of its batch."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run_batches(), name="batches")
        return await future

    async def _run_batches(self) -> None:
        try:
            while self._waiting:
                await self._run_batch([self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))])
        finally:
            self._task = None

    async def _run_batch(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._run([item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, UnavailableError):
                for single in batch:
                    await self._run_batch([single])
                return
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
