"""Retrieves what is due, as a worker does, by a clock that the test sets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from app.factory import open_retrieval
from app.services.retrieve import RetrieveService
from tests.support.clocks import ShiftedClock
from tests.support.service import Running


@asynccontextmanager
async def retrieving(
    service: Running, clock: ShiftedClock | None = None, **settings: object
) -> AsyncIterator[RetrieveService]:
    """A worker's service beside the API, under other settings and by another clock."""
    services = replace(service.services, settings=service.services.settings.model_copy(update=settings))
    async with open_retrieval(services, clock=clock or ShiftedClock()) as retrieval:
        yield retrieval


async def retrieve_all(retrieval: RetrieveService) -> int:
    """Retrieves one batch of what is due, one after the other; returns how many."""
    claims = await retrieval.claims.take(16)
    for claim in claims:
        await retrieval.retrieve(claim)
    return len(claims)
