"""The dependencies of routes: the services, and the authenticated actor with the required scope."""

from dataclasses import replace
from typing import Annotated

import structlog
from fastapi import Header, Query, Request, params
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from fastapi.security.utils import get_authorization_scheme_param

from app.domain.api_key import Actor, ApiKey, Caller, Scope
from app.domain.audit import Action
from app.domain.rate import RateClass
from app.errors import ForbiddenError, UnauthenticatedError
from app.factory import Services
from app.routers.schemas import HeaderLine, Line

SIGNATURE = "webhook-signature"
# The audit records when a key without one of these scopes tries to read. The rate bounds these records.
_DISCLOSURES = {
    Scope.RESULTS_REVEAL: (Action.IDENTITY, RateClass.REVEALS),
    Scope.MEDIA_READ: (Action.MEDIA, RateClass.MEDIA),
}

_PURPOSE = Header(
    alias="X-Purpose",
    description="The purpose of the access, for the audit trail, in ASCII or percent-encoded UTF-8.",
)
Purpose = Annotated[HeaderLine, _PURPOSE]
PossiblePurpose = Annotated[HeaderLine | None, _PURPOSE]

ClientName = Annotated[
    Line | None, Query(alias="client", description="The client whose verification is meant; for admins.")
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
        """Returns the key of the request. The audit records a refusal.

        Raises:
            UnauthenticatedError: there is none, or it is not valid.
        """
        services = services_of(request)
        try:
            key = await services.api_keys.authenticate(_bearer_token(request), address=_address(request))
        except UnauthenticatedError as error:
            _report(request, error)
            raise
        # For the access log and the headers, also if a scope is missing.
        request.state.caller = key
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
        actor = _actor(request, key)
        if not key.allows(self._scope):
            error = ForbiddenError(f"The API key lacks the scope {self._scope}.")
            if disclosure := _DISCLOSURES.get(self._scope):
                action, rate_class = disclosure
                services_of(request).limits.admit(key, rate_class)
                await services_of(request).audit.record_refusal(error, actor, action)
            raise error
        return actor


class _OptionalKey(_KeyScheme):
    """Authenticates an API key if there is one. Returns None without a key, and for a key without the scope."""

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self._scope = scope

    async def __call__(self, request: Request) -> Actor | None:
        if "Authorization" not in request.headers:
            return None
        key = await self.authenticate(request)
        return _actor(request, key) if key.allows(self._scope) else None


class _KeyOrSignature(_Key):
    """Like `_Key`, or authenticates a signature of the body, which `app.routers.openapi` describes."""

    async def __call__(self, request: Request) -> Actor:
        if SIGNATURE not in request.headers or "Authorization" in request.headers:
            return await super().__call__(request)
        try:
            caller = services_of(request).signatures.authenticate(request.headers, await request.body())
        except UnauthenticatedError as error:
            _report(request, error)
            raise
        request.state.caller = caller
        return _actor(request, caller)


def _bearer_token(request: Request) -> str:
    scheme, text = get_authorization_scheme_param(request.headers.get("Authorization"))
    if scheme.lower() != "bearer" or not text:
        raise UnauthenticatedError("An API key is required: `Authorization: Bearer frk_…`.", reason="missing")
    return text


def _actor(request: Request, caller: Caller) -> Actor:
    return Actor(caller=caller, request_id=_request_id(), address=_address(request))


def _report(request: Request, error: UnauthenticatedError) -> None:
    services_of(request).audit.report_refused_authentication(error, address=_address(request), request_id=_request_id())


def _request_id() -> str:
    request_id: str = structlog.contextvars.get_contextvars()["request_id"]
    return request_id


def _address(request: Request) -> str | None:
    return request.client.host if request.client else None


def _by(kind: type[_Key | _OptionalKey], scope: Scope) -> params.Security:
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
WebhookManager = Annotated[Actor, _by(_Key, Scope.WEBHOOKS_MANAGE)]
Admin = Annotated[Actor, _by(_Key, Scope.ADMIN)]
PossibleAdmin = Annotated[Actor | None, _by(_OptionalKey, Scope.ADMIN)]
AdminWithPurpose = Annotated[Actor, _for_a_purpose(Scope.ADMIN)]
