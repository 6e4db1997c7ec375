"""Step 1 of the story: a back end or a browser reports that a person is done."""

import re
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from app.domain.verification import BIZ_TOKEN_PATTERN
from app.errors import UnavailableError
from app.routers.dependencies import SignedNotifier, services_of
from app.routers.openapi import SIGNED
from app.routers.problems import AUTH_ERRORS, declared
from app.routers.schemas import Callback, CallbackAccepted

router = APIRouter(prefix="/v1/callbacks", tags=["callbacks"])

log = structlog.get_logger()

_SEE_OTHER: dict[int | str, dict[str, Any]] = {
    303: {
        "description": "Redirects to the configured page.",
        "headers": {"Location": {"schema": {"type": "string"}}},
    }
}


@router.post("", status_code=202, responses=declared(*AUTH_ERRORS, 400, 404, 409), openapi_extra=SIGNED)
async def call_back(request: Request, actor: SignedNotifier, callback: Callback) -> CallbackAccepted:
    """Accepts the completion of a verification, by API key or signature.

    Durable before the response. Repeating it changes nothing.
    """
    accepted = await services_of(request).intake.call_back(actor, callback.biz_token, callback.rule_id, callback.extra)
    return CallbackAccepted.model_validate(accepted)


@router.get("/redirect", status_code=303, response_class=Response, responses=_SEE_OTHER | declared("4XX"))
async def redirected(
    request: Request, biz_token: Annotated[str, Query(alias="BizToken")] = "", state: str = ""
) -> RedirectResponse:
    """DetectAuth's RedirectUrl. Public, so the response is the same for every token.

    It wakes registered tokens; they are polled anyway, so a lost wake-up does no harm. With a `state` of
    `POST /v1/redirects` it also accepts one unregistered token, durable before the response.
    """
    if re.fullmatch(BIZ_TOKEN_PATTERN, biz_token):
        try:
            await services_of(request).redirects.accept(biz_token, state)
        except UnavailableError:
            log.warning("redirect_not_recorded")
    return RedirectResponse(services_of(request).settings.process.redirect_page_url, 303)


@router.get("/done", include_in_schema=False)
async def done() -> HTMLResponse:
    """The default page after the redirect."""
    return HTMLResponse(_DONE)


_DONE = """<!doctype html>
<html lang="zh"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>核身已完成</title>
<p style="font: 1.2em sans-serif; text-align: center; margin-top: 20vh">核身已完成，您可以关闭此页面。<br>
Verification finished. You may close this page.</p></html>
"""
