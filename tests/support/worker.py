"""Retrieves due verifications, like a worker, with a clock that the test sets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from app.factory import RetrievalServices, Services, open_retrieval
from app.services.clock import Clock, ClockService
from app.services.media_guard import MediaGuard
from tests.support.clocks import ShiftedClock
from tests.support.service import Running, changed, with_services


def with_clock(services: Services, clock: Clock) -> Services:
    """Returns the services with another clock for those that only workers have."""
    return with_services(services, clocks=ClockService(database=services.database, clock=clock, accounts=()))


@asynccontextmanager
async def retrieving(
    service: Running, clock: Clock | None = None, **settings: object
) -> AsyncIterator[RetrievalServices]:
    """Opens the retrieval of a worker beside the API, with changed settings, and another clock if one is given."""
    services = service.services if clock is None else with_clock(service.services, clock)
    # A store that failed is probed at the next claim.
    guard = MediaGuard(database=services.database, store=services.media_store, first_probe_seconds=0)
    own = with_services(services, settings=changed(services.settings, **settings), media_guard=guard)
    await guard.confirm_owner()
    async with open_retrieval(own) as retrieval:
        yield retrieval


async def retrieve_later(service: Running, seconds: float) -> int:
    """Retrieves one batch of what is due by a clock that is ahead by so many seconds; returns how many."""
    async with retrieving(service, ShiftedClock(timedelta(seconds=seconds))) as retrieval:
        return await retrieve_all(retrieval)


async def retrieve_all(retrieval: RetrievalServices) -> int:
    """Retrieves one batch of due verifications, one after the other; returns how many."""
    claims = await retrieval.claims.take(16)
    for claim in claims:
        await retrieval.retrieve.retrieve(claim)
    return len(claims)
