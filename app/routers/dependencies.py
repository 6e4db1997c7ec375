"""The dependencies of routes: the services, and the authenticated actor with the required scope."""

from dataclasses import replace
from typing import Annotated

import structlog
from fastapi import Header, Request, params
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from fastapi.security.utils import get_authorization_scheme_param

from app.domain.api_key import Actor, ApiKey, Caller, Scope
from app.errors import ForbiddenError, UnauthenticatedError
from app.factory import Services
from app.routers.schemas import HeaderLine

SIGNATURE = "webhook-signature"

Purpose = Annotated[
    HeaderLine,
    Header(
        alias="X-Purpose",
        description="The purpose of the access, for the audit trail, in ASCII or percent-encoded UTF-8.",
    ),
]


def services_of(request: Request) -> Services:
    """Returns the services. Not a dependency, because FastAPI needs 20 µs per request to resolve one."""
    services: Services = request.app.state.services
    return services


class _KeyScheme(SecurityBase):
    """API keys as bearer tokens."""

    def __init__(self) -> None:
        self.model = HTTPBearer(description="Created by `faceid-results keys create`.")
        self.scheme_name = "ApiKey"

    async def authenticate(self, request: Request) -> ApiKey:
        """Returns the key of the request.

        Raises:
            UnauthenticatedError: there is none, or it is not valid.
        """
        scheme, text = get_authorization_scheme_param(request.headers.get("Authorization"))
        if scheme.lower() != "bearer" or not text:
            raise UnauthenticatedError("An API key is required: `Authorization: Bearer frk_…`.")
        services = services_of(request)
        key = await services.api_keys.authenticate(text, address=_address(request))
        # For the access log and the headers, also if a scope is missing.
        request.state.key_id = key.id
        if key.expires_soon(services.clock()):
            request.state.key_expires_at = key.expires_at
        return key


class _AnyKey(_KeyScheme):
    """Authenticates an API key with any scopes."""

    async def __call__(self, request: Request) -> ApiKey:
        return await self.authenticate(request)


class _Key(_KeyScheme):
    """Authenticates an API key that has a scope. One step, because nested dependencies cost time on every request."""

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self._scope = scope

    async def __call__(self, request: Request) -> Actor:
        key = await self.authenticate(request)
        if not key.allows(self._scope):
            raise ForbiddenError(f"The API key lacks the scope {self._scope}.")
        return _actor(request, key)


class _KeyOrSignature(_Key):
    """Like `_Key`, or authenticates a signature of the body, which `app.routers.openapi` describes."""

    async def __call__(self, request: Request) -> Actor:
        if SIGNATURE not in request.headers or "Authorization" in request.headers:
            return await super().__call__(request)
        caller = services_of(request).signatures.authenticate(request.headers, await request.body())
        request.state.key_id = caller.id
        return _actor(request, caller)


def _actor(request: Request, caller: Caller) -> Actor:
    request_id: str = structlog.contextvars.get_contextvars()["request_id"]
    return Actor(caller=caller, request_id=request_id, address=_address(request))


def _address(request: Request) -> str | None:
    return request.client.host if request.client else None


def _by(kind: type[_Key], scope: Scope) -> params.Security:
    # The `scopes` make the OpenAPI document name the scope.
    return params.Security(kind(scope), scopes=[scope])


def _for_a_purpose(scope: Scope) -> params.Depends:
    async def actor(known: Annotated[Actor, _by(_Key, scope)], purpose: Purpose) -> Actor:
        return replace(known, purpose=purpose)

    return params.Depends(actor)


Holder = Annotated[ApiKey, params.Security(_AnyKey())]
Notifier = Annotated[Actor, _by(_Key, Scope.CALLBACKS_WRITE)]
SignedNotifier = Annotated[Actor, _by(_KeyOrSignature, Scope.CALLBACKS_WRITE)]
Reader = Annotated[Actor, _by(_Key, Scope.RESULTS_READ)]
Revealer = Annotated[Actor, _for_a_purpose(Scope.RESULTS_REVEAL)]
Viewer = Annotated[Actor, _for_a_purpose(Scope.MEDIA_READ)]
Eraser = Annotated[Actor, _by(_Key, Scope.RESULTS_ERASE)]
Admin = Annotated[Actor, _by(_Key, Scope.ADMIN)]
AdminWithPurpose = Annotated[Actor, _for_a_purpose(Scope.ADMIN)]
