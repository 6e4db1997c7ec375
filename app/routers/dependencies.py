"""What routes ask for: the services, and a caller who is known and has the scope."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
from fastapi import Depends, Header, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.domain.access import Caller, Scope
from app.errors import ForbiddenError, UnauthenticatedError
from app.factory import Services
from app.routers.models import HeaderLine

_bearer = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="`faceid-results keys create` makes one.")
_signature = APIKeyHeader(
    name="webhook-signature",
    auto_error=False,
    scheme_name="Signature",
    description="Standard Webhooks, with `webhook-id` and `webhook-timestamp`, by a secret of CALLBACK_SECRETS.",
)


def _services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _services(request: Request) -> Services:  # FastAPI hands what is not async to a thread, at every request
    return _services_of(request)


Provided = Annotated[Services, Depends(_services)]


async def _request_id() -> str:
    request_id: str = structlog.contextvars.get_contextvars()["request_id"]
    return request_id


RequestId = Annotated[str, Depends(_request_id)]
Purpose = Annotated[HeaderLine, Header(alias="X-Purpose", description="What it is needed for; goes on record.")]


def _caller_with(scope: Scope) -> Callable[..., Awaitable[Caller]]:
    security = Security(_bearer, scopes=[scope])  # so that the API's description names it

    async def authenticate(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, security]
    ) -> Caller:
        if credentials is None:
            raise UnauthenticatedError("An API key is needed: `Authorization: Bearer frk_…`.")
        address = request.client.host if request.client else None
        key = await _services_of(request).access.authenticate(credentials.credentials, address=address)
        if not key.allows(scope):
            raise ForbiddenError(f"The API key lacks the scope {scope}.")
        return key

    return authenticate


_keyed_notifier = _caller_with(Scope.CALLBACKS_WRITE)


async def _keyed_or_signed(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer, scopes=[Scope.CALLBACKS_WRITE])],
    signature: Annotated[str | None, Security(_signature)],
) -> Caller:
    if signature is None or "Authorization" in request.headers:
        return await _keyed_notifier(request, credentials)
    return _services_of(request).signatures.authenticate(request.headers, await request.body())


Notifier = Annotated[Caller, Depends(_keyed_notifier)]
SignedNotifier = Annotated[Caller, Depends(_keyed_or_signed)]
Reader = Annotated[Caller, Depends(_caller_with(Scope.RESULTS_READ))]
Revealer = Annotated[Caller, Depends(_caller_with(Scope.RESULTS_REVEAL))]
Viewer = Annotated[Caller, Depends(_caller_with(Scope.MEDIA_READ))]
Eraser = Annotated[Caller, Depends(_caller_with(Scope.RESULTS_ERASE))]
Admin = Annotated[Caller, Depends(_caller_with(Scope.ADMIN))]
