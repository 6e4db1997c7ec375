"""The provider of OpenID Connect: its description, its keys, and the claims that it makes for a code."""

import asyncio
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import httpx
import msgspec
import structlog

from app.domain.single_sign_on import Flow, fault_of, values_of
from app.errors import ConfigurationError, ProviderError, UnauthenticatedError
from app.oidc.settings import UNKNOWN_KEY, OidcSettings, is_safe
from app.tls import client_context

if TYPE_CHECKING:
    from app.oidc.id_tokens import IdTokenVerifier

TOTAL_SECONDS = 10.0
MAX_ANSWER_BYTES = 256 * 1024

# Keys that the provider has removed are trusted no longer than this.
_KEYS_SECONDS = 3600.0
# Forged ids of keys must not make this service call the provider again and again.
_UNKNOWN_KEY_SECONDS = 60.0
# Sign-ins that wait for the provider at the same time. Others wait for them, within the deadline.
_CONCURRENCY = 16
_OK, _BAD_REQUEST, _UNAUTHORIZED = 200, 400, 401
_CLOCK_CLAIMS = {"exp", "iat", "nbf"}

log = structlog.get_logger()


class Metadata(msgspec.Struct, frozen=True):
    """The parts of the provider's description that this service uses."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    authorization_response_iss_parameter_supported: bool = False

    @property
    def endpoints(self) -> Sequence[str]:
        """All addresses that browsers or this service call."""
        found = (self.authorization_endpoint, self.token_endpoint, self.jwks_uri, self.userinfo_endpoint)
        return [url for url in found if url is not None]


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str
    access_token: str | None = None


class _Keys(msgspec.Struct, frozen=True):
    keys: list[dict[str, object]]


class _Refusal(msgspec.Struct, frozen=True):
    error: str


Document = TypeVar("Document")


class OidcClient:
    """Signs people in with one provider. Reads its description once, and its keys when they are needed.

    Redirects, proxies of the environment and compression are not supported.

    Args:
        settings: the settings, with an issuer.
        total_seconds: the deadline of all calls of one step.
        monotonic: the clock for the age of the keys.

    Raises:
        ConfigurationError: joserfc is not installed, or OIDC_CA_FILE cannot be read.
    """

    def __init__(
        self,
        settings: OidcSettings,
        *,
        total_seconds: float = TOTAL_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._total_seconds = total_seconds
        self._monotonic = monotonic
        self._tls = client_context("OIDC_CA_FILE", settings.oidc_ca_file)
        self._verifier = _new_verifier()
        self._metadata: Metadata | None = None
        self._keys_read_at = float("-inf")
        self._lock = asyncio.Lock()
        self._slots = asyncio.Semaphore(_CONCURRENCY)

    async def check(self) -> None:
        """Reads the description and the keys.

        Raises:
            ProviderError: the provider does not answer, or not as it should. `cause` says how.
        """
        async with self._step():
            await self._read_keys(await self._described(), 0)

    async def authorization_url(self, flow: Flow) -> str:
        """Returns the address at the provider where the person signs in.

        Raises:
            ProviderError: the provider does not answer, or not as it should.
        """
        metadata = self._metadata
        if metadata is None:
            async with self._step():
                metadata = await self._described()
        query = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": self._settings.callback_url,
            "scope": self._settings.oidc_scopes,
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": urlsafe_b64encode(sha256(flow.verifier.encode()).digest()).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return str(httpx.URL(metadata.authorization_endpoint).copy_merge_params(query))

    async def fetch_claims(self, code: str, issuer: str | None, flow: Flow, now: datetime) -> Mapping[str, object]:
        """Exchanges a code for checked claims about the person. Reads the user info if the token lacks roles.

        Args:
            code: the code of the provider's answer.
            issuer: the issuer that the answer names (RFC 9207).
            flow: the flow that the browser has begun.
            now: the time.

        Raises:
            UnauthenticatedError: the code, the issuer or the ID token is wrong; `reason` says which.
            ProviderError: the provider does not answer, or not as it should.
        """
        async with self._step():
            metadata = await self._described()
            must_name_itself = metadata.authorization_response_iss_parameter_supported
            if issuer != metadata.issuer and (must_name_itself or issuer is not None):
                raise UnauthenticatedError("Another provider has answered.", reason="oidc_answer")
            tokens = await self._exchange(metadata, code, flow)
            claims = await self._verified(metadata, tokens.id_token)
            wanted = {"issuer": metadata.issuer, "client_id": self._settings.oidc_client_id, "nonce": flow.nonce}
            if fault := fault_of(claims, **wanted, now=now):
                log.warning("id_token_rejected", fault=fault)
                reason = "oidc_clock" if fault in _CLOCK_CLAIMS else "oidc_token"
                raise UnauthenticatedError("The ID token is not valid.", reason=reason)
            if values_of(claims, self._settings.oidc_admin_claim) is None:
                claims = {**await self._user_info(metadata, tokens, claims), **claims}
            return claims

    async def _described(self) -> Metadata:
        """Returns the description of the provider, read once. A failure is not kept."""
        async with self._lock:
            if self._metadata is None:
                url = f"{str(self._settings.oidc_issuer).rstrip('/')}/.well-known/openid-configuration"
                metadata = _parsed(Metadata, "The discovery document", *await self._call("GET", url))
                if metadata.issuer != self._settings.oidc_issuer:
                    raise _failure("The discovery document names another issuer than OIDC_ISSUER.")
                if not all(map(is_safe, metadata.endpoints)):
                    raise _failure("The discovery document names an address without HTTPS.")
                self._metadata = metadata
            return self._metadata

    async def _exchange(self, metadata: Metadata, code: str, flow: Flow) -> _Tokens:
        """Redeems a code, with `client_secret_basic`: both parts of the pair are encoded (RFC 6749, 2.3.1)."""
        secret = self._settings.oidc_client_secret.get_secret_value()
        pair = f"{quote(self._settings.oidc_client_id, safe='')}:{quote(secret, safe='')}"
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._settings.callback_url,
            "code_verifier": flow.verifier,
        }
        authorization = f"Basic {b64encode(pair.encode()).decode()}"
        status, body = await self._call("POST", metadata.token_endpoint, authorization, form)
        if status in {_BAD_REQUEST, _UNAUTHORIZED}:
            error = _parsed(_Refusal, "The token endpoint", _OK, body).error
            if error != "invalid_grant":
                raise _failure("The token endpoint rejected this client. Check OIDC_CLIENT_ID and OIDC_CLIENT_SECRET.")
            raise UnauthenticatedError("The provider rejected its code.", reason="oidc_code")
        return _parsed(_Tokens, "The token endpoint", status, body)

    async def _verified(self, metadata: Metadata, token: str) -> Mapping[str, object]:
        """Returns the claims of a signed token. Reads the keys again if they are old or one is unknown."""
        await self._read_keys(metadata, _KEYS_SECONDS)
        try:
            return self._verifier.verify(token)
        except UnauthenticatedError as error:
            if error.reason != UNKNOWN_KEY:
                raise
            await self._read_keys(metadata, _UNKNOWN_KEY_SECONDS)
            return self._verifier.verify(token)

    async def _read_keys(self, metadata: Metadata, max_age_seconds: float) -> None:
        """Reads the keys unless they are younger than this."""
        async with self._lock:
            if self._monotonic() - self._keys_read_at >= max_age_seconds:
                found = _parsed(_Keys, "The key set", *await self._call("GET", metadata.jwks_uri))
                self._verifier.replace_keys(found.keys)
                self._keys_read_at = self._monotonic()

    async def _user_info(
        self, metadata: Metadata, tokens: _Tokens, claims: Mapping[str, object]
    ) -> Mapping[str, object]:
        """Returns the further claims of the person; none if the provider has no such endpoint."""
        if metadata.userinfo_endpoint is None or tokens.access_token is None:
            return {}
        answer = await self._call("GET", metadata.userinfo_endpoint, f"Bearer {tokens.access_token}")
        found = _parsed(dict[str, object], "The user info", *answer)
        if found.get("sub") != claims["sub"]:
            raise UnauthenticatedError("The user info is about somebody else.", reason="oidc_token")
        return found

    async def _call(
        self, method: str, url: str, authorization: str | None = None, form: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Returns status and body of an answer."""
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if authorization:
            headers["Authorization"] = authorization
        body = b""
        try:
            async with (
                httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=self._total_seconds) as client,
                client.stream(method, url, headers=headers, data=form) as response,
            ):
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > MAX_ANSWER_BYTES:
                        raise _failure("The provider's answer is too large.")
                return response.status_code, body
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise _failure(f"The provider cannot be called: {type(error).__name__}.") from None

    @asynccontextmanager
    async def _step(self) -> AsyncIterator[None]:
        """Limits the time of one step of a sign-in, and how many are done at the same time."""
        try:
            async with asyncio.timeout(self._total_seconds), self._slots:
                yield
        except TimeoutError:
            raise _failure(f"The provider did not answer within {self._total_seconds:.0f} s.") from None


def _new_verifier() -> "IdTokenVerifier":
    try:
        from app.oidc.id_tokens import IdTokenVerifier
    except ImportError:
        sentence = "OIDC_ISSUER needs the package joserfc. Run `pip install 'faceid-results[oidc]'`, or unset it."
        raise ConfigurationError(sentence) from None
    return IdTokenVerifier()


def _parsed(kind: type[Document], what: str, status: int, body: bytes) -> Document:
    if status != _OK:
        raise _failure(f"{what} was answered with {status}.")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError):
        raise _failure(f"{what} is not what OpenID Connect defines.") from None


def _failure(cause: str) -> ProviderError:
    log.warning("sign_in_provider_failed", cause=cause)
    return ProviderError("The sign-in service of the organisation does not answer.", cause=cause)
