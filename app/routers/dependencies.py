"""What routes ask for: the services, and a caller who is known and has the scope."""

from typing import Annotated

import structlog
from fastapi import Depends, Header, Request, params
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from fastapi.security.utils import get_authorization_scheme_param

from app.domain.access import Caller, Scope
from app.errors import ForbiddenError, UnauthenticatedError
from app.factory import Services
from app.routers.models import HeaderLine

SIGNATURE = "webhook-signature"


def services_of(request: Request) -> Services:
    """What does the work. No dependency, because FastAPI takes 20 µs to find one out, at every request."""
    services: Services = request.app.state.services
    return services


async def _request_id() -> str:
    request_id: str = structlog.contextvars.get_contextvars()["request_id"]
    return request_id


RequestId = Annotated[str, Depends(_request_id)]
Purpose = Annotated[HeaderLine, Header(alias="X-Purpose", description="What it is needed for; goes on record.")]


class _Key(SecurityBase):
    """Who sends a key that has a scope. In one step, for every request pays for each dependency of a dependency."""

    def __init__(self, scope: Scope) -> None:
        self.model = HTTPBearer(description="`faceid-results keys create` makes one.")
        self.scheme_name = "ApiKey"
        self._scope = scope

    async def __call__(self, request: Request) -> Caller:
        scheme, text = get_authorization_scheme_param(request.headers.get("Authorization"))
        if scheme.lower() != "bearer" or not text:
            raise UnauthenticatedError("An API key is needed: `Authorization: Bearer frk_…`.")
        address = request.client.host if request.client else None
        key = await services_of(request).access.authenticate(text, address=address)
        if not key.allows(self._scope):
            raise ForbiddenError(f"The API key lacks the scope {self._scope}.")
        return key


class _KeyOrSignature(_Key):
    """The same, or whoever signed the body; `app.routers.document` describes the signature."""

    async def __call__(self, request: Request) -> Caller:
        if SIGNATURE not in request.headers or "Authorization" in request.headers:
            return await super().__call__(request)
        return services_of(request).signatures.authenticate(request.headers, await request.body())


def _by(kind: type[_Key], scope: Scope) -> params.Security:
    return params.Security(kind(scope), scopes=[scope])  # the latter so that the API's description names it


Notifier = Annotated[Caller, _by(_Key, Scope.CALLBACKS_WRITE)]
SignedNotifier = Annotated[Caller, _by(_KeyOrSignature, Scope.CALLBACKS_WRITE)]
Reader = Annotated[Caller, _by(_Key, Scope.RESULTS_READ)]
Revealer = Annotated[Caller, _by(_Key, Scope.RESULTS_REVEAL)]
Viewer = Annotated[Caller, _by(_Key, Scope.MEDIA_READ)]
Eraser = Annotated[Caller, _by(_Key, Scope.RESULTS_ERASE)]
Admin = Annotated[Caller, _by(_Key, Scope.ADMIN)]
