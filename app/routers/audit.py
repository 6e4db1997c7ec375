"""The audit trail, for admins."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from app.domain.audit import Action, AuditFilter
from app.domain.rate import RateClass
from app.routers.audit_schemas import AuditEvent, AuditPage
from app.routers.dependencies import Admin, services_of
from app.routers.problems import AUTH_ERRORS, declared
from app.routers.rates import limited
from app.routers.rejections import StrictRoute
from app.routers.schemas import BizToken, Line, Moment

router = APIRouter(prefix="/v1/audit", tags=["audit"], route_class=StrictRoute)


@router.get("", responses=declared(*AUTH_ERRORS, 400), openapi_extra=limited(RateClass.LISTS))
async def list_audit_events(
    request: Request,
    actor: Admin,
    action: Action | None = None,
    key_id: Line | None = None,
    biz_token: BizToken | None = None,
    outcome: Annotated[Line | None, Query(description="`done`, or why the action was refused.")] = None,
    at_from: Annotated[Moment | None, Query(alias="from")] = None,
    at_to: Annotated[Moment | None, Query(alias="to")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> AuditPage:
    """Lists disclosures, searches, requested retrievals, erasures, holds, key changes and refusals, newest first.

    A refused action has the error's code as its `outcome`. A refused authentication has the reason, and it appears once
    per address, reason, key or person, and ten minutes.
    """
    wanted = AuditFilter(action=action, key_id=key_id, outcome=outcome, at_from=at_from, at_to=at_to)
    page = await services_of(request).audit.search(actor, wanted, biz_token, limit=limit, cursor=cursor)
    return AuditPage(items=[AuditEvent.of(*found) for found in page.records], next_cursor=page.next_cursor)
