"""The requests that this service sends to webhook endpoints, for the `webhooks` of the API description."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Header

from app.domain.events import EventType
from app.routers.event_schemas import EventView

_MEANINGS: Mapping[EventType, str] = {
    EventType.RETRIEVED: "The first result of a verification is stored.",
    EventType.UPDATED: "Another result is stored, a fact of `data` has changed, or retrieval has begun again.",
    EventType.FAILED: "Tencent returns no result for the verification.",
    EventType.EXPIRED: "The 72 hours in which Tencent keeps a result have passed without one.",
    EventType.ERASED: "The data of the verification was erased.",
    EventType.EXPIRING: "The verification is still pending 24 hours before its deadline. Sent once.",
    EventType.ENDPOINT_FAILING: "Another webhook endpoint of the client does not accept events.",
    EventType.ENDPOINT_DISABLED: "Another webhook endpoint of the client was disabled; its events are held.",
    EventType.TEST: "A test that someone has requested. It is about nothing.",
}

router = APIRouter()
"""Routes that only the description contains."""


async def _receive(
    event: EventView,
    webhook_id: Annotated[str, Header(description="The `id` of the event, the same in every repeat.")],
    webhook_timestamp: Annotated[int, Header(description="Seconds since the epoch, of this attempt.")],
    webhook_signature: Annotated[
        str, Header(description="After Standard Webhooks: one signature per secret that is valid, separated by blanks.")
    ],
) -> None:
    """Describes the request. No route calls it."""


for _kind, _meaning in _MEANINGS.items():
    router.add_api_route(
        _kind,
        _receive,
        methods=["POST"],
        status_code=204,
        name=_kind,
        operation_id=_kind.replace(".", "_"),
        summary=_meaning,
        description="Answer with any 2xx within 15 seconds. Other answers are repeated later with the same bytes.",
        response_description="The event was accepted.",
    )
