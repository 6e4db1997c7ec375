"""Waiting for events and ending tasks without losing a cancellation.

On Python 3.11 `asyncio.wait_for` loses a cancellation that arrives together with its result
(https://github.com/python/cpython/issues/86296). Drivers use it, so a task may need more than one cancellation.
"""

import asyncio
from contextlib import suppress

# Between cancellations.
_PATIENCE_SECONDS = 1.0


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Returns when the event is set, or after `seconds`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def end(*tasks: asyncio.Task[object]) -> None:
    """Cancels tasks until all have ended. Their results are ignored."""
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_PATIENCE_SECONDS)
