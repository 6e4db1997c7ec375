"""Endpoints for monitoring."""

from typing import Any

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.errors import UnavailableError
from app.observability import DETAILS
from app.routers.dependencies import PossibleAdmin, services_of
from app.routers.problems import AUTH_ERRORS, declared
from app.routers.schemas import Readiness

router = APIRouter(tags=["meta"])

# The key is optional.
_WITHOUT_KEY: dict[str, Any] = {"security": [{}]}

log = structlog.get_logger()


@router.get("/livez")
async def check_liveness() -> dict[str, str]:
    """The process is running."""
    return {"status": "ok"}


@router.get("/readyz", responses=declared(*AUTH_ERRORS), openapi_extra=_WITHOUT_KEY)
async def check_readiness(request: Request, admin: PossibleAdmin) -> Readiness:
    """Callbacks can be accepted; otherwise 503 with the reason.

    `warnings` say what an operator should do. Only a request with an admin key gets them, others get their number.
    """
    condition = await services_of(request).health.check()
    warnings = [*condition.warnings, *condition.key_warnings, *condition.endpoint_warnings]
    return Readiness(status="ok", warning_count=len(warnings), warnings=warnings if admin else None)


@router.get("/metrics", response_class=PlainTextResponse, responses=declared(*AUTH_ERRORS), openapi_extra=_WITHOUT_KEY)
async def get_metrics(request: Request, admin: PossibleAdmin) -> Response:
    """Metrics in Prometheus' text format. While the database does not answer, those that it provides are outdated.

    Those that name accounts, rules or API keys are added for a request with an admin key.
    """
    try:
        await services_of(request).gauges.refresh()
    except UnavailableError:
        log.warning("metrics_incomplete")
    details = generate_latest(DETAILS) if admin else b""
    return Response(generate_latest() + details, media_type=CONTENT_TYPE_LATEST)
