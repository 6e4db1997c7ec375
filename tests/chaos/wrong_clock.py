"""Runs `python -m tests.chaos.wrong_clock HOURS`: a worker on a machine whose clock is ahead by so many hours."""

import asyncio
import sys
from datetime import timedelta

from app.config import read_settings
from app.factory import open_services
from app.observability import configure_logging
from app.services.clock import SteadyClock
from app.worker import working
from tests.support.clocks import ShiftedClock


async def work(hours: float) -> None:
    """Works until the process is killed."""
    clock = SteadyClock(machine=ShiftedClock(timedelta(hours=hours)))
    async with open_services(read_settings(), clock=clock) as services, working(services):
        await asyncio.Event().wait()


if __name__ == "__main__":
    configure_logging("CRITICAL")
    asyncio.run(work(float(sys.argv[1])))
