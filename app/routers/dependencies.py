"""What routes ask for: the services, and a caller whose key has the scope."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.domain.access import ApiKey, Scope
from app.errors import ForbiddenError, UnauthenticatedError
from app.factory import Services
from app.routers.models import HeaderLine

_bearer = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="`faceid-results keys create` makes one.")


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Provided = Annotated[Services, Depends(_services)]


def _request_id() -> str:
    request_id: str = structlog.contextvars.get_contextvars()["request_id"]
    return request_id


RequestId = Annotated[str, Depends(_request_id)]
Purpose = Annotated[HeaderLine, Header(alias="X-Purpose", description="What it is needed for; goes on record.")]


def _caller_with(scope: Scope) -> Callable[..., Awaitable[ApiKey]]:
    security = Security(_bearer, scopes=[scope])  # so that the API's description names it

    async def authenticate(
        services: Provided, credentials: Annotated[HTTPAuthorizationCredentials | None, security]
    ) -> ApiKey:
        if credentials is None:
            raise UnauthenticatedError("An API key is needed: `Authorization: Bearer frk_…`.")
        key = await services.access.authenticate(credentials.credentials)
        if not key.allows(scope):
            raise ForbiddenError(f"The API key lacks the scope {scope}.")
        return key

    return authenticate


Notifier = Annotated[ApiKey, Depends(_caller_with(Scope.CALLBACKS_WRITE))]
Reader = Annotated[ApiKey, Depends(_caller_with(Scope.RESULTS_READ))]
Revealer = Annotated[ApiKey, Depends(_caller_with(Scope.RESULTS_REVEAL))]
Eraser = Annotated[ApiKey, Depends(_caller_with(Scope.RESULTS_ERASE))]
Admin = Annotated[ApiKey, Depends(_caller_with(Scope.ADMIN))]
Viewer = Annotated[ApiKey, Depends(_caller_with(Scope.MEDIA_READ))]
