"""Deliveries of events to webhook endpoints: listed, sent again, and replayed."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from app.domain.rate import RateClass
from app.routers.delivery_schemas import DeliveryFilters, DeliveryPageView, DeliveryView, ReplayView, ReplayWanted
from app.routers.dependencies import WebhookManager, services_of
from app.routers.problems import AUTH_ERRORS, declared
from app.routers.rates import limited
from app.routers.rejections import StrictRoute
from app.routers.webhook_schemas import DeliveryId, EndpointId, delivery_number

router = APIRouter(prefix="/v1", tags=["webhooks"], route_class=StrictRoute)

Id = Annotated[DeliveryId, Path(alias="delivery_id")]
OfEndpoint = Annotated[EndpointId, Path(alias="endpoint_id")]
_CHANGES = limited(RateClass.WEBHOOKS)


@router.get(
    "/webhook-endpoints/{endpoint_id}/deliveries",
    responses=declared(*AUTH_ERRORS, 400, 404),
    openapi_extra=limited(RateClass.LISTS),
)
async def list_deliveries(
    request: Request, actor: WebhookManager, endpoint_id: OfEndpoint, wanted: Annotated[DeliveryFilters, Query()]
) -> DeliveryPageView:
    """Lists the deliveries of an endpoint with their last attempts, newest first. They are kept for 30 days.

    With `type`, a page may have fewer items than `limit`, or none, although others follow. The last one has no
    `next_cursor`.
    """
    page = await services_of(request).deliveries.list(
        actor, wanted.filter(endpoint_id), limit=wanted.limit, cursor=wanted.cursor
    )
    return DeliveryPageView.of(page)


@router.get("/deliveries/{delivery_id}", responses=declared(*AUTH_ERRORS, 404))
async def get_delivery(request: Request, actor: WebhookManager, delivery_id: Id) -> DeliveryView:
    """Returns one delivery with its last attempts."""
    return DeliveryView.of(await services_of(request).deliveries.get(actor, delivery_number(delivery_id)))


@router.post(
    "/deliveries/{delivery_id}/retry",
    status_code=202,
    responses=declared(*AUTH_ERRORS, 404, 409),
    openapi_extra=_CHANGES,
)
async def retry_delivery(request: Request, actor: WebhookManager, delivery_id: Id) -> DeliveryView:
    """Sends a delivery again now, with a new schedule and the same event id."""
    return DeliveryView.of(await services_of(request).deliveries.retry(actor, delivery_number(delivery_id)))


@router.post(
    "/webhook-endpoints/{endpoint_id}/replay",
    status_code=202,
    responses=declared(*AUTH_ERRORS, 400, 404),
    openapi_extra=_CHANGES,
)
async def replay_events(
    request: Request, actor: WebhookManager, endpoint_id: OfEndpoint, wanted: ReplayWanted
) -> ReplayView:
    """Sends the events of a range of time again, after all fresh ones: at most 10,000, the oldest first.

    Events that wait for a delivery are left out. The filters of the endpoint stay in effect. With `dry_run` the events
    are only counted.
    """
    replay = await services_of(request).deliveries.replay(actor, endpoint_id, wanted.which, **wanted.arguments())
    return ReplayView.of(replay)
