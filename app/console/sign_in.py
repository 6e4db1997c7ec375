"""The sign-in by API key, and the sign-out."""

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from app.console import rendering
from app.console.language import marked as _
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
from app.domain.session import LIFETIME
from app.errors import TooManyRequestsError, UnauthenticatedError

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_REFUSED = _("This key is unknown, expired, revoked, or not valid from your network.")
_TOO_OFTEN = _("Too many failed attempts from your network. Wait a minute and try again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInPage:
    """The form: the page to show afterwards, what went wrong before, and whether the cookie will be lost."""

    next_url: str
    problem: str | None = None
    lacks_https: bool = False


@router.get("/admin/login")
async def show(request: Request) -> Response:
    """Shows the form."""
    return _form(request, _own_path(request.query_params.get("next", "")))


@router.post("/admin/login")
async def sign_in(request: Request) -> Response:
    """Opens a session. The answer to a wrong key does not say why it is wrong."""
    fields = await fields_of(request)
    next_url = _own_path(fields.get("next", ""))
    try:
        session_id = await services_of(request).sessions.sign_in(
            fields.get("key", ""), address=address_of(request), request_id=request_id()
        )
    except UnauthenticatedError:
        return _form(request, next_url, _REFUSED, status=401)
    except TooManyRequestsError:
        return _form(request, next_url, _TOO_OFTEN, status=429)
    response = see_other(next_url)
    response.set_cookie(
        COOKIE, session_id, max_age=int(LIFETIME.total_seconds()), secure=True, httponly=True, samesite="lax"
    )
    return response


@router.post("/admin/logout")
async def sign_out(visit: SignedInVisit) -> Response:
    """Ends the session, and lets the browser remove what it has kept."""
    await visit.services.sessions.sign_out(visit.signed_in, visit.actor)
    response = see_other("/admin/login")
    response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax")
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


def _form(request: Request, next_url: str, problem: str | None = None, *, status: int = 200) -> Response:
    page = SignInPage(next_url=next_url, problem=problem, lacks_https=lacks_https(request))
    return rendering.page(request, "sign_in.html", page, status=status)


def _own_path(url: str) -> str:
    """Returns the address if it is one of the console's pages, or else the overview."""
    is_own = (url == "/admin" or url.startswith(("/admin/", "/admin?"))) and url.isprintable() and "\\" not in url
    return url if is_own and not url.startswith("/admin/log") else "/admin"
