"""Retrieves due verifications, like a worker, with a clock that the test sets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from app.factory import RetrievalServices, open_retrieval
from app.services.clock import Clock, ClockService
from tests.support.service import Running, changed


@asynccontextmanager
async def retrieving(
    service: Running, clock: Clock | None = None, **settings: object
) -> AsyncIterator[RetrievalServices]:
    """Opens the retrieval of a worker beside the API, with changed settings, and another clock if one is given."""
    services = service.services
    own_settings, own_clock = changed(services.settings, **settings), clock or services.clock
    clocks = services.clocks if clock is None else ClockService(database=services.database, clock=clock, accounts=())
    own = replace(services, settings=own_settings, clock=own_clock, clocks=clocks)
    async with open_retrieval(own) as retrieval:
        yield retrieval


async def retrieve_all(retrieval: RetrievalServices) -> int:
    """Retrieves one batch of due verifications, one after the other; returns how many."""
    claims = await retrieval.claims.take(16)
    for claim in claims:
        await retrieval.retrieve.retrieve(claim)
    return len(claims)
