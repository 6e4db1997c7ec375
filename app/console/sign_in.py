"""The sign-in by API key or with the provider of the organisation, and the sign-out."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from fastapi import APIRouter, Request, Response

from app.console import rendering, words
from app.console.language import marked as _
from app.console.rendering import with_query
from app.console.visits import (
    COOKIE,
    PageRoute,
    SignedInVisit,
    address_of,
    fields_of,
    lacks_https,
    request_id,
    see_other,
    services_of,
)
from app.domain.session import GRANTED_LIFETIME, LIFETIME
from app.domain.single_sign_on import FLOW_LIFETIME
from app.errors import NotFoundError, ProviderError, TooManyRequestsError, UnauthenticatedError, UnavailableError
from app.services.single_sign_on import SingleSignOnService

router = APIRouter(route_class=PageRoute, include_in_schema=False)

# Sentence and status by the code of what went wrong.
_PROBLEMS: Mapping[str, tuple[str, int]] = {
    "key": (_("This key is unknown, expired, revoked, or not valid from your network."), 401),
    "too_often": (_("Too many failed attempts from your network. Wait a minute and try again."), 429),
    "database": (words.ERRORS["unavailable"], 503),
    "unavailable": (
        _("Your organisation's sign-in does not answer. Try again later, or sign in with an API key."),
        503,
    ),
    "invalid": (
        _("The answer of your organisation's sign-in is not valid. Try again, or tell your administrator."),
        401,
    ),
    "oidc_state": (
        _("The sign-in took longer than ten minutes, or began in another browser or window. Try again."),
        401,
    ),
    "oidc_denied": (_("Your organisation's sign-in was cancelled or denied. Nothing was opened."), 403),
    "oidc_clock": (
        _("The clocks of this service and of your organisation's sign-in differ. Tell your administrator."),
        401,
    ),
    "oidc_role": (
        _("Your organisation knows you, but you have no permission here. Ask your administrator."),
        403,
    ),
}
_PATH = "/admin/login"
# A link of the console itself, or an address that the person has entered.
_CHOSEN = {"same-origin", "none"}
_PROVIDER_PATH = f"{_PATH}/oidc"
_FLOW_COOKIE = "__Host-sign-in"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInPage:
    """The form: the page to show afterwards, what went wrong before, and whether the cookie will be lost.

    `provider_url` leads to the sign-in of the organisation, if there is one.
    """

    next_url: str
    provider_url: str | None
    problem: str | None = None
    lacks_https: bool = False


@router.get(_PATH)
async def show(request: Request) -> Response:
    """Shows the form, and why a sign-in at the provider failed."""
    return _form(request, _own_path(request.query_params.get("next", "")), request.query_params.get("problem"))


@router.post(_PATH)
async def sign_in(request: Request) -> Response:
    """Opens a session. The answer to a wrong key does not say why it is wrong."""
    fields = await fields_of(request)
    next_url = _own_path(fields.get("next", ""))
    try:
        session_id = await services_of(request).sessions.sign_in(
            fields.get("key", ""), address=address_of(request), request_id=request_id()
        )
    except UnauthenticatedError:
        return _form(request, next_url, "key")
    except TooManyRequestsError:
        return _form(request, next_url, "too_often")
    response = see_other(next_url)
    _set_cookie(response, COOKIE, session_id, LIFETIME)
    return response


@router.get(_PROVIDER_PATH)
async def begin_at_provider(request: Request) -> Response:
    """Sends the browser to the sign-in of the organisation. A cookie binds the answer to this browser."""
    next_url = _own_path(request.query_params.get("next", ""))
    if request.headers.get("Sec-Fetch-Site", "none") not in _CHOSEN:
        # Another site may lead here, but only the person begins a session.
        return see_other(with_query(_PATH, next=next_url))
    try:
        url, flow = await _provider_of(request).begin(next_url)
    except ProviderError:
        return see_other(with_query(_PATH, next=next_url, problem="unavailable"))
    response = see_other(url)
    # `Strict` would withhold it from the request that the other site leads to.
    _set_cookie(response, _FLOW_COOKIE, flow, FLOW_LIFETIME)
    return response


@router.get(f"{_PROVIDER_PATH}/callback")
async def finish_at_provider(request: Request) -> Response:
    """Opens a session for the person who has signed in with the organisation.

    Every answer leads to another page, so no page has the code in its address.
    """
    session_id = problem = None
    next_url = "/admin"
    try:
        session_id, next_url = await _provider_of(request).finish(
            request.query_params,
            request.cookies.get(_FLOW_COOKIE, ""),
            address=address_of(request),
            request_id=request_id(),
        )
    except UnauthenticatedError as error:
        problem = error.reason if error.reason in _PROBLEMS else "invalid"
    except TooManyRequestsError:
        problem = "too_often"
    except UnavailableError as error:
        problem = "unavailable" if isinstance(error, ProviderError) else "database"
    response = see_other(with_query(_PATH, problem=problem) if problem else next_url)
    if session_id:
        _set_cookie(response, COOKIE, session_id, GRANTED_LIFETIME)
    response.delete_cookie(_FLOW_COOKIE, secure=True, httponly=True, samesite="lax")
    return response


@router.post("/admin/logout")
async def sign_out(visit: SignedInVisit) -> Response:
    """Ends the session, and lets the browser remove what it has kept."""
    await visit.services.sessions.sign_out(visit.signed_in, visit.actor)
    response = see_other(_PATH)
    response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax")
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


def _form(request: Request, next_url: str, problem: str | None) -> Response:
    services = services_of(request)
    # The provider sends browsers back to this host, which must have the cookie.
    start = f"{services.settings.oidc.public_url}{_PROVIDER_PATH}"
    sentence, status = _PROBLEMS.get(problem or "", (None, 200))
    page = SignInPage(
        next_url=next_url,
        provider_url=with_query(start, next=next_url) if services.single_sign_on else None,
        problem=sentence,
        lacks_https=lacks_https(request),
    )
    return rendering.page(request, "sign_in.html", page, status=status)


def _provider_of(request: Request) -> SingleSignOnService:
    """Returns the sign-in of the organisation.

    Raises:
        NotFoundError: there is none.
    """
    service = services_of(request).single_sign_on
    if service is None:
        raise NotFoundError("Single sign-on is not configured.", code="no_page")
    return service


def _set_cookie(response: Response, name: str, value: str, lifetime: timedelta) -> None:
    response.set_cookie(name, value, max_age=int(lifetime.total_seconds()), secure=True, httponly=True, samesite="lax")


def _own_path(url: str) -> str:
    """Returns the address if it is one of the console's pages, or else the overview."""
    is_own = (url == "/admin" or url.startswith(("/admin/", "/admin?"))) and url.isprintable() and "\\" not in url
    return url if is_own and not url.startswith("/admin/log") else "/admin"
