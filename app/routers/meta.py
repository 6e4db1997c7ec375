"""For machines that look after the service."""

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.errors import UnavailableError
from app.routers.dependencies import services_of
from app.routers.models import Readiness
from app.routers.problems import declared

router = APIRouter(tags=["meta"])

log = structlog.get_logger()


@router.get("/livez")
async def live() -> dict[str, str]:
    """The process runs."""
    return {"status": "ok"}


@router.get("/readyz", responses=declared(503))
async def ready(request: Request) -> Readiness:
    """Callbacks can be taken in; 503 with the reason otherwise. Warnings tell what an operator should do."""
    return Readiness(status="ok", warnings=list((await services_of(request).health.check()).warnings))


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Prometheus' text format. What stands in the database is missing while that does not answer."""
    try:
        await services_of(request).health.look()
    except UnavailableError:
        log.warning("metrics_incomplete")
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
