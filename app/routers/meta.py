"""For machines that look after the service."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.routers.dependencies import Provided
from app.routers.problems import declared

router = APIRouter(tags=["meta"])


@router.get("/livez")
async def live() -> dict[str, str]:
    """The process runs."""
    return {"status": "ok"}


@router.get("/readyz", responses=declared(503))
async def ready(services: Provided) -> dict[str, str]:
    """Callbacks can be taken in; 503 with the reason otherwise."""
    await services.health.check()
    return {"status": "ok"}


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics() -> Response:
    """Prometheus' text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
