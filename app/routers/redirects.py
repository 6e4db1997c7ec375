"""Before step 1 of the story: a business asks for the state that it puts into DetectAuth's RedirectUrl."""

from fastapi import APIRouter, Request

from app.routers.dependencies import Notifier, services_of
from app.routers.models import RedirectIssued, RedirectWanted
from app.routers.problems import KEYED, declared

router = APIRouter(prefix="/v1/redirects", tags=["callbacks"])


@router.post("", status_code=201, responses=declared(*KEYED, 400))
async def issue(request: Request, caller: Notifier, wanted: RedirectWanted | None = None) -> RedirectIssued:
    """A signed state, for rules with `redirect_state`: the browser that brings it back may bring an unknown token."""
    state, ticket = services_of(request).redirect.issue(caller, (wanted or RedirectWanted()).rule_id)
    return RedirectIssued(state=state, extra=ticket.nonce, expires_at=ticket.expires_at)
