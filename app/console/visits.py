"""A visit: the session of a request, the check of its origin, and errors as pages."""

import urllib.parse
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import structlog
from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse, Response

from app.console import rendering
from app.domain.api_key import Actor
from app.errors import ForbiddenError, InvalidRequestError, ServiceError, UnauthenticatedError
from app.factory import Services
from app.observability import where
from app.services.sessions import SignedIn

COOKIE = "__Host-console"
# Browsers keep a cookie with this prefix only if it is Secure. Local addresses count as secure without TLS.
_SAFE = {"GET", "HEAD"}
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}
_MAX_FIELDS = 50

Fields = Mapping[str, str]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A request of somebody who has signed in."""

    request: Request
    signed_in: SignedIn
    actor: Actor

    @property
    def services(self) -> Services:
        """The services."""
        return services_of(self.request)

    def page(
        self,
        template: str,
        page: object,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        place: str | None = None,
    ) -> Response:
        """Returns a page in the frame of the console; see `rendering.page`."""
        return rendering.page(
            self.request, template, page, actor=self.actor, status=status, headers=headers, place=place
        )

    def for_purpose(self, purpose: str) -> Actor:
        """Returns the actor with the stated purpose."""
        return replace(self.actor, purpose=purpose)


class PageRoute(APIRoute):
    """A route whose errors are pages, and whose forms must come from the console itself."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Returns the handler of FastAPI, with the check before it and the pages of errors after it."""
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            try:
                if request.method not in _SAFE:
                    _require_same_origin(request)
                _require_texts(request.scope["path"], *request.query_params.values())
                return await handle(request)
            except UnauthenticatedError:
                return _to_sign_in(request)
            except ServiceError as error:
                return rendering.error_page(request, error)
            except (ClientDisconnect, HTTPException, RequestValidationError):
                raise
            except Exception as error:
                log.error("request_crashed", error=type(error).__name__, where=where(error.__traceback__))
                return rendering.error_page(request, ServiceError("An internal error occurred."))

        return handle_page


def services_of(request: Request) -> Services:
    """Returns the services."""
    services: Services = request.app.state.services
    return services


def request_id() -> str:
    """Returns the id of the request, which the audit records."""
    known: str = structlog.contextvars.get_contextvars()["request_id"]
    return known


def address_of(request: Request) -> str | None:
    """Returns the network address of the browser."""
    return request.client.host if request.client else None


def lacks_https(request: Request) -> bool:
    """Returns whether the browser will not keep the cookie, because it came over plain HTTP from another machine."""
    return request.url.scheme == "http" and request.url.hostname not in _LOCAL_HOSTS


def see_other(url: str) -> RedirectResponse:
    """Returns the answer to a form: the address of the page to show next."""
    return RedirectResponse(url, status_code=303)


async def fields_of(request: Request) -> Fields:
    """Returns the fields of a form without surrounding blanks; of repeated ones the last. The body has at most 8 KiB.

    Raises:
        InvalidRequestError: it is no form, or it contains a NUL.
    """
    try:
        pairs = urllib.parse.parse_qsl((await request.body()).decode(), max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise InvalidRequestError("The body is not a form.") from None
    _require_texts(*(value for _, value in pairs))
    return {name: value.strip() for name, value in pairs}


def _require_texts(*texts: str) -> None:
    """Rejects a NUL, which Postgres cannot store: its refusal would look like a failure of the database."""
    if any("\0" in text for text in texts):
        raise InvalidRequestError("The request contains a NUL character.")


async def _visit(request: Request) -> Visit:
    """Returns the visit of a request.

    Raises:
        UnauthenticatedError: there is no session, or it has ended.
    """
    session_id = request.cookies.get(COOKIE)
    if not session_id:
        raise UnauthenticatedError("Sign in first.", reason="missing")
    address = address_of(request)
    signed_in = await services_of(request).sessions.find(session_id, address=address, request_id=request_id())
    actor = Actor(caller=signed_in.caller, request_id=request_id(), address=address)
    # For the access log, and the frame of an error page.
    request.state.caller, request.state.actor = actor.caller, actor
    return Visit(request=request, signed_in=signed_in, actor=actor)


SignedInVisit = Annotated[Visit, Depends(_visit)]


def _require_same_origin(request: Request) -> None:
    """Checks that a form comes from a page of the console.

    Browsers send `Sec-Fetch-Site` to trustworthy addresses, and `Origin` with every form.

    Raises:
        ForbiddenError: it comes from another site, or the browser does not say from where.
    """
    site = request.headers.get("Sec-Fetch-Site")
    origin = urllib.parse.urlsplit(request.headers.get("Origin", "")).netloc
    if site == "same-origin" or (site is None and origin and origin == request.headers.get("Host")):
        return
    raise ForbiddenError("The form was sent from another site.", code="cross_site")


def _to_sign_in(request: Request) -> Response:
    """Returns the way to the sign-in, and back to this page afterwards."""
    is_page = request.method in _SAFE
    place = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    url = "/admin/login" + (f"?{urllib.parse.urlencode({'next': place})}" if is_page and place != "/admin" else "")
    if "HX-Request" in request.headers:
        # A redirect would be followed and its answer put into the page.
        return Response(status_code=401, headers={"HX-Redirect": url})
    response = see_other(url)
    if COOKIE in request.cookies:
        response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax")
    return response
