"""Endpoints for monitoring."""

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.errors import UnavailableError
from app.routers.dependencies import services_of
from app.routers.problems import declared
from app.routers.schemas import Readiness

router = APIRouter(tags=["meta"])

log = structlog.get_logger()


@router.get("/livez")
async def live() -> dict[str, str]:
    """The process is running."""
    return {"status": "ok"}


@router.get("/readyz", responses=declared(503))
async def ready(request: Request) -> Readiness:
    """Callbacks can be accepted; otherwise 503 with the reason. `warnings` say what an operator should do."""
    condition = await services_of(request).health.check()
    return Readiness(status="ok", warnings=[*condition.warnings, *condition.key_warnings])


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Metrics in Prometheus' text format. While the database does not answer, those that it provides are outdated."""
    try:
        await services_of(request).health.measure()
    except UnavailableError:
        log.warning("metrics_incomplete")
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
