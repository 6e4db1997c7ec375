"""The log of deliveries: a filter of a rare type examines a part of the rows per page, and finds all over the pages."""

from dataclasses import replace
from datetime import datetime
from itertools import cycle

import pytest

from app.domain.deliveries import Delivery, DeliveryFilter, DeliveryState, new_delivery
from app.domain.events import Event, EventType, new_public_id
from app.domain.verification import LONG_AGO
from app.services.clock import now
from tests.support.service import Running, actor

TYPES = [EventType.RETRIEVED] * 5 + [EventType.FAILED] + [EventType.RETRIEVED] * 3
STATES = [DeliveryState.DELIVERED] * 3 + [DeliveryState.FAILED]
COUNT = 60


async def deliveries_of(service: Running) -> DeliveryFilter:
    """Creates deliveries of several types and states; returns the filter for all of them."""
    endpoint = await service.services.webhook_endpoints.get(actor(), await service.endpoint_id())
    kinds, states, at = cycle(TYPES), cycle(STATES), now()
    events = [
        Event(public_id=new_public_id(), type=next(kinds), client="default", at=at, details="{}") for _ in range(COUNT)
    ]
    async with service.services.database.write() as tx:
        await tx.events.create_counter()
        await tx.events.add_all(events)
        known = await tx.events.sequence(limit=500)
        await tx.deliveries.add_all(
            [replace(new_delivery(endpoint, event, at), due_at=None, state=next(states)) for event in known]
        )
    return DeliveryFilter(endpoint_id=endpoint.id)


async def pages(
    service: Running, wanted: DeliveryFilter, limit: int, examined: int
) -> list[list[tuple[Delivery, Event]]]:
    found, before_id = [], None
    for _ in range(COUNT + 1):
        # A transaction has a deadline, and a busy machine may be slow.
        async with service.services.database.read() as tx:
            page, complete_from = await tx.delivery_log.search(
                wanted, limit=limit, before_id=before_id, examined=examined
            )
        found.append(list(page))
        before_id = page[-1][0].id if len(page) == limit else complete_from
        if not before_id:
            break
    return found


@pytest.mark.parametrize(("limit", "examined"), [(1, 1), (2, 3), (3, 10), (5, 1000)])
@pytest.mark.parametrize(("states", "start"), [((), None), ((DeliveryState.FAILED,), LONG_AGO)], ids=["all", "failed"])
async def test_pages_of_a_type_have_all_of_it_in_order(
    idle_service: Running, limit: int, examined: int, states: tuple[DeliveryState, ...], start: datetime | None
) -> None:
    everything = replace(await deliveries_of(idle_service), states=states, start=start)
    (whole,) = await pages(idle_service, everything, limit=1000, examined=1)
    found = await pages(idle_service, replace(everything, types=(EventType.FAILED,)), limit, examined)

    assert [each for page in found for each in page] == [each for each in whole if each[1].type is EventType.FAILED]
    assert max(map(len, found)) <= limit


async def test_page_of_a_type_without_deliveries_examines_a_part(idle_service: Running) -> None:
    everything = await deliveries_of(idle_service)
    found = await pages(idle_service, replace(everything, types=(EventType.ERASED,)), limit=50, examined=20)

    # 45 are delivered and 15 have failed.
    assert found == [[], [], []]
