"""Step 1 of the story: somebody says that a person is done."""

import re
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from app.domain.verification import SPELLING
from app.errors import UnavailableError
from app.routers.dependencies import SignedNotifier, services_of
from app.routers.document import SIGNED
from app.routers.models import Callback, CallbackAccepted
from app.routers.problems import KEYED, declared

router = APIRouter(prefix="/v1/callbacks", tags=["callbacks"])

log = structlog.get_logger()

_SEE_OTHER: dict[int | str, dict[str, Any]] = {
    303: {"description": "To the configured page.", "headers": {"Location": {"schema": {"type": "string"}}}}
}


@router.post("", status_code=202, responses=declared(*KEYED, 400, 404, 409), openapi_extra=SIGNED)
async def call_back(request: Request, caller: SignedNotifier, callback: Callback) -> CallbackAccepted:
    """Verification complete, said with an API key or signed. Durable before the answer; a repeat changes nothing."""
    accepted = await services_of(request).receive.call_back(
        caller, callback.biz_token, callback.rule_id, callback.extra
    )
    return CallbackAccepted.model_validate(accepted)


@router.get("/redirect", status_code=303, response_class=Response, responses=_SEE_OTHER | declared("4XX"))
async def redirected(
    request: Request, biz_token: Annotated[str, Query(alias="BizToken")] = "", state: str = ""
) -> RedirectResponse:
    """The browser's way in, DetectAuth's RedirectUrl. Anybody can call it, so that it answers the same whatever comes.

    Registered tokens are woken; a lost wake-up is no loss, they are polled as well. With a `state` of
    `POST /v1/redirects` one token that is not registered is taken in too, and durable before the answer.
    """
    if re.fullmatch(SPELLING, biz_token):
        try:
            await services_of(request).redirect.redirected(biz_token, state)
        except UnavailableError:
            log.warning("redirect_not_recorded")
    return RedirectResponse(services_of(request).settings.redirect_page_url, 303)


@router.get("/done", include_in_schema=False)
async def done() -> HTMLResponse:
    """Where people land from the redirect unless the settings name a page of the business."""
    return HTMLResponse(_DONE)


_DONE = """<!doctype html>
<html lang="zh"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>核身已完成</title>
<p style="font: 1.2em sans-serif; text-align: center; margin-top: 20vh">核身已完成，您可以关闭此页面。<br>
Verification finished. You may close this page.</p></html>
"""
