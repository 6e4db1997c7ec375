"""Step 1 of the story: a back end or a browser reports that a person is done."""

import re
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from app.domain import redirect_state
from app.domain.rate import RateClass
from app.domain.verification import BIZ_TOKEN_PATTERN
from app.errors import UnavailableError
from app.routers.dependencies import ClientName, SignedNotifier, services_of
from app.routers.openapi import SIGNED
from app.routers.problems import AUTH_ERRORS, declared
from app.routers.rates import limited
from app.routers.rejections import StrictRoute
from app.routers.schemas import Callback, CallbackAccepted

router = APIRouter(prefix="/v1/callbacks", tags=["callbacks"], route_class=StrictRoute)
# Tencent adds parameters, so no parameter is refused.
browsers = APIRouter(prefix="/v1/callbacks", tags=["callbacks"])

log = structlog.get_logger()

# The likeliest first: RedirectUrl may have a `token` of the caller's own.
_TOKEN_NAMES = ("biztoken", "biz_token", "token")
_QUERY = {
    "parameters": [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}, "description": description}
        for name, description in (
            ("BizToken", "The token; also accepted as `biz_token` or `token`."),
            ("state", "The state of `POST /v1/redirects`."),
        )
    ]
}
_SEE_OTHER: dict[int | str, dict[str, Any]] = {
    303: {
        "description": "Redirects to the configured page.",
        "headers": {"Location": {"schema": {"type": "string"}}},
    }
}


@router.post(
    "", status_code=202, responses=declared(*AUTH_ERRORS, 400, 409), openapi_extra=SIGNED | limited(RateClass.INTAKE)
)
async def send_callback(
    request: Request, actor: SignedNotifier, callback: Callback, client: ClientName = None
) -> CallbackAccepted:
    """Accepts the completion of a verification, by API key or signature.

    Durable before the response. Repeating it changes nothing.
    """
    request.state.biz_token = callback.biz_token
    accepted = await services_of(request).intake.call_back(
        actor, callback.biz_token, callback.rule_id, callback.extra, client=client
    )
    return CallbackAccepted.model_validate(accepted)


@browsers.get(
    "/redirect",
    status_code=303,
    response_class=Response,
    responses=_SEE_OTHER | declared("4XX"),
    openapi_extra=_QUERY,
)
async def follow_redirect(request: Request) -> RedirectResponse:
    """Accepts the browser at DetectAuth's RedirectUrl. Public, so the response is the same for every token.

    It wakes registered tokens; they are polled anyway, so a lost wake-up does no harm. With a `state` of
    `POST /v1/redirects` it also accepts one unregistered token, durable before the response.
    """
    biz_token, state = parse_redirect(request.url.query)
    try:
        await services_of(request).redirects.accept(biz_token, state)
    except UnavailableError:
        log.warning("redirect_not_recorded")
    return RedirectResponse(services_of(request).settings.process.redirect_page_url, 303)


def parse_redirect(query: str) -> tuple[str | None, str | None]:
    """Returns the BizToken and the state of a redirect's query; None for a missing or malformed one.

    Some clients append a query to RedirectUrl, which has one already, or encode the query or its ampersands once more:
    `?state=S?BizToken=T`, `&amp;BizToken=T`, `BizToken%3DT`. Parameters that need no repair win.
    """
    repaired = re.sub(r"&amp;|[?#]", "&", unquote_plus(query))
    pairs = [(name.strip().lower(), value.strip()) for name, value in parse_qsl(query) + parse_qsl(repaired)]
    named = (value for wanted in _TOKEN_NAMES for name, value in pairs if name == wanted)
    tokens = (value for value in named if re.fullmatch(BIZ_TOKEN_PATTERN, value))
    states = (value for name, value in pairs if name == "state" and re.fullmatch(redirect_state.PATTERN, value))
    return next(tokens, None), next(states, None)


@browsers.get("/done", include_in_schema=False)
async def done() -> HTMLResponse:
    """Returns the default page after the redirect."""
    return HTMLResponse(_DONE)


_DONE = """<!doctype html>
<html lang="zh"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>核身已完成</title>
<p style="font: 1.2em sans-serif; text-align: center; margin-top: 20vh">核身已完成，您可以关闭此页面。<br>
Verification finished. You may close this page.</p></html>
"""
