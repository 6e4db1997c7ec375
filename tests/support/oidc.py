"""A provider of OpenID Connect on a loopback port, which makes right tokens and, if a test says so, wrong ones."""

import json
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import httpx
from joserfc.jwk import ECKey, Key
from joserfc.jws import JWSRegistry

from tests.support.receiver import Message, Receiver, answer, receiving

# Both need their encoding in the header: the first a colon, the second all kinds of characters.
CLIENT_ID = "faceid:console"
CLIENT_SECRET = 's/+ %&=?:~"'
CLAIM = "groups"
SETTINGS = {
    "oidc_client_id": CLIENT_ID,
    "oidc_client_secret": CLIENT_SECRET,
    "public_url": "https://console.test",
    "oidc_admin_values": "faceid-admins",
}
"""The settings of a client of the provider, without its address."""
FLOW = "__Host-sign-in"
"""The cookie of a sign-in that has begun."""
NOT_VALID = "The answer of your organisation's sign-in is not valid."
ELSEWHERE = "took longer than ten minutes, or began in another browser"


def json_answer(value: object, status: int = 200) -> bytes:
    """Returns an answer with a JSON body."""
    return answer(status, json.dumps(value).encode(), content_type="application/json")


def new_key(kid: str) -> Key:
    """Returns a new key pair for ES256."""
    return ECKey.generate_key("P-256", {"kid": kid, "use": "sig"})


def encoded(part: bytes) -> str:
    """Returns a part of a token."""
    return urlsafe_b64encode(part).rstrip(b"=").decode()


def unsigned(header: Mapping[str, object], claims: Mapping[str, object]) -> str:
    """Returns the signed part of a token."""
    parts = (json.dumps(part).encode() for part in (header, claims))
    return ".".join(map(encoded, parts))


@dataclass
class Provider:
    """The provider. `claims` and `header` change every ID token; a claim that is None is left out.

    `token` replaces the ID token, `replies` the answer of a path, and `user_info` is what its endpoint returns.
    """

    receiver: Receiver
    scheme: str = "http"
    claims: dict[str, object] = field(default_factory=dict)
    header: dict[str, object] = field(default_factory=dict)
    algorithm: str = "ES256"
    key: Key = field(default_factory=lambda: new_key("first"))
    published: list[Key] = field(default_factory=list)
    token: str | None = None
    metadata: dict[str, object] = field(default_factory=dict)
    user_info: dict[str, object] = field(default_factory=dict)
    replies: dict[str, bytes | None] = field(default_factory=dict)
    requests: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.published.append(self.key)
        self.receiver.answer = self._answer

    @property
    def url(self) -> str:
        return self.receiver.url("", scheme=self.scheme)

    @property
    def paths(self) -> list[str]:
        """The paths that were called, in order."""
        return [message.target for message in self.receiver.messages]

    def approve(self, url: str, **changes: str | None) -> str:
        """Returns where the browser goes after the sign-in there. `changes` replace parameters; None leaves one out."""
        request = dict(parse_qsl(urlsplit(url).query))
        code = f"code-{len(self.requests)}"
        self.requests[code] = request
        query = {"code": code, "state": request["state"], "iss": self.url} | changes
        kept = {name: value for name, value in query.items() if value is not None}
        return f"{request['redirect_uri']}?{urlencode(kept)}"

    def id_token(self, request: Mapping[str, str]) -> str:
        """Returns the ID token for a request, with the changes that the test wants."""
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": self.url,
            "sub": "person-1",
            "aud": request["client_id"],
            "exp": now + 300,
            "iat": now,
            "nonce": request["nonce"],
            CLAIM: ["faceid-admins"],
        }
        claims = {name: value for name, value in (claims | self.claims).items() if value is not None}
        header = {"alg": self.algorithm, "kid": self.key.kid} | self.header
        header = {name: value for name, value in header.items() if value is not None}
        text = unsigned(header, claims)
        return f"{text}.{encoded(JWSRegistry.algorithms[self.algorithm].sign(text.encode(), self.key))}"

    def _answer(self, message: Message) -> bytes | None:
        if message.target in self.replies:
            return self.replies[message.target]
        match message.target:
            case "/.well-known/openid-configuration":
                return json_answer(self.document() | self.metadata)
            case "/jwks":
                return json_answer({"keys": [key.as_dict(private=False) for key in self.published]})
            case "/token":
                return self._exchange(message)
            case "/userinfo":
                is_right = message.headers.get("authorization") == "Bearer access"
                return json_answer(self.user_info) if is_right else answer(401)
            case _:
                return answer(404)

    def document(self) -> dict[str, object]:
        """Returns the discovery document."""
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize?tenant=1",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "authorization_response_iss_parameter_supported": True,
        }

    def _exchange(self, message: Message) -> bytes:
        pair = f"{quote(CLIENT_ID, safe='')}:{quote(CLIENT_SECRET, safe='')}"
        if message.headers.get("authorization") != f"Basic {b64encode(pair.encode()).decode()}":
            return json_answer({"error": "invalid_client"}, 401)
        form = dict(parse_qsl(message.body.decode()))
        request = self.requests.pop(form["code"], None)
        challenge = encoded(sha256(form["code_verifier"].encode()).digest())
        if request is None or challenge != request["code_challenge"] or form["redirect_uri"] != request["redirect_uri"]:
            return json_answer({"error": "invalid_grant"}, 400)
        return json_answer({"id_token": self.token or self.id_token(request), "access_token": "access"})


@asynccontextmanager
async def providing() -> AsyncIterator[Provider]:
    """Serves a provider during the block."""
    async with receiving() as receiver:
        yield Provider(receiver)


async def signed_in(
    client: httpx.AsyncClient, provider: Provider, next_url: str = "", **changes: str | None
) -> httpx.Response:
    """Signs a browser in at the provider; returns the answer of this service, or the page that says why it refuses."""
    begin = await client.get("/admin/login/oidc", params={"next": next_url})
    assert begin.status_code == 303, begin.text
    return await shown(client, await client.get(provider.approve(begin.headers["Location"], **changes)))


async def shown(client: httpx.AsyncClient, answer: httpx.Response) -> httpx.Response:
    """Returns the page of the sign-in if an answer leads there."""
    place = answer.headers.get("Location", "")
    return await client.get(place) if place.startswith("/admin/login?") else answer
