"""Before step 1 of the story: a business requests the signed state for DetectAuth's RedirectUrl."""

from fastapi import APIRouter, Request

from app.domain.rate import RateClass
from app.routers.dependencies import Notifier, services_of
from app.routers.problems import AUTH_ERRORS, declared
from app.routers.rates import limited
from app.routers.rejections import StrictRoute
from app.routers.schemas import RedirectIssued, RedirectWanted

router = APIRouter(prefix="/v1/redirects", tags=["callbacks"], route_class=StrictRoute)


@router.post("", status_code=201, responses=declared(*AUTH_ERRORS, 400), openapi_extra=limited(RateClass.INTAKE))
async def create_redirect_state(
    request: Request, actor: Notifier, wanted: RedirectWanted | None = None
) -> RedirectIssued:
    """Issues a signed state, for rules with `redirect_state`. A redirect with it may name an unknown token."""
    signed, state = services_of(request).redirects.issue(actor, (wanted or RedirectWanted()).rule_id)
    return RedirectIssued(state=signed, extra=state.nonce, expires_at=state.expires_at)
