"""Signs people in to the console with OpenID Connect: authorization code flow with PKCE, and rights from a claim."""

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
import structlog

from app.domain.api_key import Actor
from app.domain.single_sign_on import Flow, caller_id_of, caller_of, new_flow, role_of, values_of
from app.errors import UnauthenticatedError
from app.oidc.client import OidcClient
from app.oidc.settings import OidcSettings
from app.sealing.aead import TamperedDataError
from app.sealing.keyring import KeyRing, Ring
from app.services.sessions import SessionService

_PURPOSE = "oidc_flow"
_MAX_USED_STATES = 10_000
_MAX_CHARACTERS = 4096
# The cookie must stay below the 4 KiB that browsers keep.
_MAX_NEXT_BYTES = 1024

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class SingleSignOnService:
    """Begins sign-ins and finishes them with a session."""

    settings: OidcSettings
    provider: OidcClient
    sessions: SessionService
    keyring: KeyRing
    clock: Callable[[], datetime]
    _used_states: dict[str, None] = field(init=False, default_factory=dict)

    async def begin(self, next_url: str) -> tuple[str, str]:
        """Begins a sign-in; returns the address at the provider, and the sealed flow for the browser to keep.

        Args:
            next_url: the page to show afterwards.

        Raises:
            ProviderError: the provider does not answer, or not as it should.
        """
        flow = new_flow(next_url if len(next_url.encode()) <= _MAX_NEXT_BYTES else "/admin", self.clock())
        url = await self.provider.authorization_url(flow)
        sealed = self.keyring.wrap(Ring.IDENTITY, msgspec.json.encode(flow), _PURPOSE)
        return url, urlsafe_b64encode(sealed).decode()

    async def finish(
        self, answer: Mapping[str, str], sealed_flow: str, *, address: str | None, request_id: str
    ) -> tuple[str, str]:
        """Opens a session for the person that the provider's answer is about. The audit records it, and a refusal too.

        Args:
            answer: the parameters that the provider has sent the browser back with.
            sealed_flow: the flow that the browser has kept, empty without one.
            address: the network address of the browser.
            request_id: the id of the request.

        Returns:
            The id of the session, which only the browser keeps, and the page to show.

        Raises:
            TooManyRequestsError: too many attempts from this network have failed.
            UnauthenticatedError: the sign-in is refused; `reason` says why.
            ProviderError: the provider does not answer, or not as it should.
        """
        self.sessions.require_attempt(address)
        try:
            flow = self._opened(answer, sealed_flow)
        except UnauthenticatedError as error:
            # It reveals nothing, and any site can make browsers send it, so it must not use up their attempts.
            self.sessions.audit.report_refused_authentication(error, address=address, request_id=request_id)
            raise
        try:
            claims = await self._claims(answer, flow)
            role = role_of(values_of(claims, self.settings.oidc_admin_claim) or (), self.settings.roles)
            if role is None:
                raise _refusal("oidc_role", caller_id_of(claims))
        except UnauthenticatedError as error:
            self.sessions.refuse(error, address=address, request_id=request_id)
            raise
        actor = Actor(caller=caller_of(claims, role), request_id=request_id, address=address)
        return await self.sessions.open(actor, key_id=None), flow.next_url

    async def _claims(self, answer: Mapping[str, str], flow: Flow) -> Mapping[str, object]:
        """Returns the checked claims for an answer to this flow."""
        if "error" in answer:
            # The text is the provider's, and only this value is defined for what people do.
            raise _refusal("oidc_denied" if answer["error"] == "access_denied" else "oidc_answer")
        code = answer.get("code", "")
        if not 0 < len(code) <= _MAX_CHARACTERS:
            raise _refusal("oidc_answer")
        return await self.provider.fetch_claims(code, answer.get("iss"), flow, self.clock())

    def _opened(self, answer: Mapping[str, str], sealed_flow: str) -> Flow:
        """Returns the flow that this browser has begun and not finished yet. It can be used once.

        Raises:
            UnauthenticatedError: there is none, it has expired, or the answer belongs to another one.
        """
        try:
            sealed = urlsafe_b64decode(sealed_flow[:_MAX_CHARACTERS])
            flow = msgspec.json.decode(self.keyring.unwrap(Ring.IDENTITY, sealed, _PURPOSE), type=Flow)
        except (ValueError, msgspec.MsgspecError, TamperedDataError):
            raise _refusal("oidc_state") from None
        is_its_answer = secrets.compare_digest(answer.get("state", "").encode(), flow.state.encode())
        if not is_its_answer or flow.state in self._used_states or self.clock() >= flow.expires_at:
            raise _refusal("oidc_state")
        if len(self._used_states) >= _MAX_USED_STATES:
            self._used_states.clear()
        self._used_states[flow.state] = None
        return flow


def _refusal(reason: str, person: str = "") -> UnauthenticatedError:
    return UnauthenticatedError("The sign-in was refused.", reason=reason, key_id=person)
