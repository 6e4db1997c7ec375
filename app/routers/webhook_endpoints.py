"""Webhook endpoints: clients manage where their events are sent to."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from app.domain.rate import RateClass
from app.routers.connections import while_connected
from app.routers.dependencies import WebhookManager, services_of
from app.routers.problems import AUTH_ERRORS, declared
from app.routers.rates import limited
from app.routers.rejections import StrictRoute
from app.routers.schemas import Line
from app.routers.webhook_schemas import (
    EndpointChange,
    EndpointCreation,
    EndpointDetails,
    EndpointId,
    EndpointPageView,
    EndpointTest,
    EndpointTestResult,
    EndpointView,
    EndpointWithSecret,
    Rotation,
)
from app.services.webhook_endpoints import MAX_COUNTED

router = APIRouter(prefix="/v1/webhook-endpoints", tags=["webhooks"], route_class=StrictRoute)

Id = Annotated[EndpointId, Path(alias="endpoint_id")]
_CHANGES = limited(RateClass.WEBHOOKS)


@router.post("", status_code=201, responses=declared(*AUTH_ERRORS, 400, 409), openapi_extra=_CHANGES)
async def create_webhook_endpoint(
    request: Request, actor: WebhookManager, creation: EndpointCreation
) -> EndpointWithSecret:
    """Creates an endpoint. Its secret is in this answer only."""
    service = services_of(request).webhook_endpoints
    endpoint, secret = await service.create(actor, creation.facts(), client=creation.client)
    return EndpointWithSecret.of(endpoint, secret=secret)


@router.get("", responses=declared(*AUTH_ERRORS, 400), openapi_extra=limited(RateClass.LISTS))
async def list_webhook_endpoints(
    request: Request,
    actor: WebhookManager,
    client: Annotated[Line | None, Query(description="The client whose endpoints are listed; for admins.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> EndpointPageView:
    """Lists endpoints without their URLs, because paths may contain secrets."""
    page = await services_of(request).webhook_endpoints.list(actor, client=client, limit=limit, cursor=cursor)
    return EndpointPageView.of(page)


@router.get("/{endpoint_id}", responses=declared(*AUTH_ERRORS, 404))
async def get_webhook_endpoint(request: Request, actor: WebhookManager, endpoint_id: Id) -> EndpointDetails:
    """Returns one endpoint."""
    endpoint = await services_of(request).webhook_endpoints.get(actor, endpoint_id)
    count = await services_of(request).deliveries.count_pending(actor, endpoint_id, at_most=MAX_COUNTED)
    return EndpointDetails.of(endpoint, pending_count=count)


@router.patch("/{endpoint_id}", responses=declared(*AUTH_ERRORS, 400, 404, 409), openapi_extra=_CHANGES)
async def change_webhook_endpoint(
    request: Request, actor: WebhookManager, endpoint_id: Id, change: EndpointChange
) -> EndpointView:
    """Changes an endpoint, or enables or disables it. The secret stays the same, also for another URL.

    While an endpoint is disabled, its events are held. `held` says what becomes of them when it is enabled.
    """
    service = services_of(request).webhook_endpoints
    return EndpointView.of(
        await service.change(actor, endpoint_id, change.changes(), state=change.state, held=change.held)
    )


@router.delete("/{endpoint_id}", status_code=204, responses=declared(*AUTH_ERRORS, 404), openapi_extra=_CHANGES)
async def delete_webhook_endpoint(request: Request, actor: WebhookManager, endpoint_id: Id) -> None:
    """Removes an endpoint, its deliveries and their attempts."""
    await services_of(request).webhook_endpoints.delete(actor, endpoint_id)


@router.post("/{endpoint_id}/rotate", responses=declared(*AUTH_ERRORS, 400, 404), openapi_extra=_CHANGES)
async def rotate_webhook_secret(
    request: Request, actor: WebhookManager, endpoint_id: Id, rotation: Rotation | None = None
) -> EndpointWithSecret:
    """Creates a new secret. Until `keep_for` ends, messages are signed with both. An even earlier one ends now."""
    service = services_of(request).webhook_endpoints
    endpoint, secret = await service.rotate(actor, endpoint_id, keep_for=(rotation or Rotation()).span())
    return EndpointWithSecret.of(endpoint, secret=secret)


@router.post("/{endpoint_id}/test", responses=declared(*AUTH_ERRORS, 400, 404), openapi_extra=_CHANGES)
async def send_test_event(
    request: Request, actor: WebhookManager, endpoint_id: Id, wanted: EndpointTest | None = None
) -> EndpointTestResult:
    """Sends an event with `"test": true` now, and answers what came back within 15 s. It is not repeated."""
    kind = (wanted or EndpointTest()).type
    sending = services_of(request).webhook_endpoints.test(actor, endpoint_id, kind)
    return EndpointTestResult.of(await while_connected(request, sending))
