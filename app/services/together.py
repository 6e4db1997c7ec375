"""What many ask for at the same time, done once for all of them.

A transaction waits for the disk or the network, and a statement costs several times what a row more in it does. So one
is under way at a time, and whoever comes meanwhile shares the next. Who comes alone does not wait for others.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from app.errors import UnavailableError

MOST_TOGETHER = 100

Asked = TypeVar("Asked")
Told = TypeVar("Told")


class Together(Generic[Asked, Told]):
    """A function of one, made of a function of many.

    Args:
        do: answers each of many, in their order. An exception that it answers is raised to the one who asked; one that
            it raises, too, unless the database does not answer: then it is tried for each of them alone.
    """

    def __init__(self, do: Callable[[Sequence[Asked]], Awaitable[Sequence[Told | Exception]]]) -> None:
        self._do = do
        self._waiting: deque[tuple[Asked, asyncio.Future[Told]]] = deque()
        self._working: asyncio.Task[None] | None = None

    async def __call__(self, asked: Asked) -> Told:
        """What `do` has to say about it. Whoever gives up waiting does not take the others along."""
        future: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._working is None:
            self._working = asyncio.create_task(self._work(), name="together")
        return await future

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._answer([self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))])
        finally:
            self._working = None

    async def _answer(self, batch: Sequence[tuple[Asked, asyncio.Future[Told]]]) -> None:
        try:
            answers = await self._do([asked for asked, _ in batch])
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, UnavailableError):
                for one in batch:
                    await self._answer([one])
                return
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
