"""ID tokens: which are accepted, and which wrong ones open no session."""

import hmac
import json
import time
from collections.abc import Callable

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from app.console.visits import COOKIE
from tests.support.console import audited, browser, words_of
from tests.support.oidc import CLIENT_ID, CLIENT_SECRET, NOT_VALID, Provider, new_key, signed_in, unsigned
from tests.support.service import Running

CLOCKS = "The clocks of this service and of your organisation's sign-in differ."


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"])
async def test_allowed_algorithms_are_accepted(service: Running, provider: Provider, algorithm: str) -> None:
    if algorithm != "ES256":
        is_rsa = algorithm.endswith("S256")
        provider.key = RSAKey.generate_key(2048) if is_rsa else OKPKey.generate_key("Ed25519")
        provider.key.ensure_kid()
        provider.published[:] = [provider.key]
    provider.algorithm, provider.header = algorithm, {"typ": "JWT", "x-vendor": "1"}
    async with browser(service) as client:
        answer = await signed_in(client, provider)

    assert answer.status_code == 303


Change = Callable[[Provider], None]


def with_claims(**claims: object) -> Change:
    """Returns a change of the claims. A function gets the time in seconds."""

    def change(provider: Provider) -> None:
        provider.claims = {name: made(time.time()) if callable(made) else made for name, made in claims.items()}

    return change


def with_header(**header: object) -> Change:
    return lambda provider: provider.header.update(header)


def without_signature(provider: Provider) -> None:
    claims = {"iss": provider.url, "sub": "x", "aud": CLIENT_ID, "exp": time.time() + 60, "iat": time.time()}
    provider.token = unsigned({"alg": "none"}, claims) + "."


def with_hmac(secret: Callable[[Provider], bytes]) -> Change:
    def change(provider: Provider) -> None:
        text = unsigned({"alg": "HS256", "kid": "first"}, {"iss": provider.url, "sub": "x", "aud": CLIENT_ID})
        signature = OctKey.import_key(hmac.digest(secret(provider), text.encode(), "sha256")).as_dict()["k"]
        provider.token = f"{text}.{signature}"

    return change


def with_another_key(provider: Provider) -> None:
    provider.key = new_key("first")


def with_a_symmetric_key(provider: Provider) -> None:
    provider.published.append(OctKey.import_key("0" * 32, {"kid": "shared"}))
    text = unsigned({"alg": "HS256", "kid": "shared"}, {"iss": provider.url, "sub": "x", "aud": CLIENT_ID})
    provider.token = f"{text}.{OctKey.import_key(hmac.digest(b'0' * 32, text.encode(), 'sha256')).as_dict()['k']}"


def with_an_embedded_key(provider: Provider) -> None:
    provider.key = new_key("mine")
    provider.header = {"kid": None, "jwk": provider.key.as_dict(private=False)}


def with_an_encryption_key(provider: Provider) -> None:
    provider.key = ECKey.generate_key("P-256", {"kid": "second"})
    provider.published.append(ECKey.import_key(provider.key.as_dict(private=False), {"use": "enc"}))


def with_token(token: str) -> Change:
    return lambda provider: setattr(provider, "token", token)


WRONG_TOKENS: dict[str, tuple[Change, str]] = {
    "no signature": (without_signature, "oidc_token"),
    "HMAC with the secret of the client": (with_hmac(lambda _: CLIENT_SECRET.encode()), "oidc_token"),
    "HMAC with the public key": (
        with_hmac(lambda provider: json.dumps(provider.key.as_dict(private=False)).encode()),
        "oidc_token",
    ),
    "HMAC with a published key": (with_a_symmetric_key, "oidc_token"),
    "signature of another key": (with_another_key, "oidc_token"),
    "key in the header": (with_an_embedded_key, "oidc_token"),
    "key for encryption": (with_an_encryption_key, "oidc_key"),
    "algorithm that the key is not for": (with_header(alg="RS256"), "oidc_token"),
    "unknown kid": (with_header(kid="unknown"), "oidc_key"),
    "unknown critical header": (with_header(crit=["b"], b=1), "oidc_token"),
    "access token": (with_header(typ="at+jwt"), "oidc_token"),
    "logout token": (with_header(typ="logout+jwt"), "oidc_token"),
    "not a token": (with_token("x"), "oidc_token"),
    "not JSON": (with_token("eyJhbGciOiJFUzI1NiJ9.e30.!"), "oidc_token"),
    "another issuer": (with_claims(iss="https://other.test"), "oidc_token"),
    "no issuer": (with_claims(iss=None), "oidc_token"),
    "another audience": (with_claims(aud="other"), "oidc_token"),
    "other audiences": (with_claims(aud=["other", "another"]), "oidc_token"),
    "no audience": (with_claims(aud=None), "oidc_token"),
    "further audience without azp": (with_claims(aud=[CLIENT_ID, "other"]), "oidc_token"),
    "another azp": (with_claims(azp="other"), "oidc_token"),
    "another nonce": (with_claims(nonce="other"), "oidc_token"),
    "no nonce": (with_claims(nonce=None), "oidc_token"),
    "no subject": (with_claims(sub=None), "oidc_token"),
    "empty subject": (with_claims(sub=""), "oidc_token"),
    "subject that is a number": (with_claims(sub=1), "oidc_token"),
    "subject of two lines": (with_claims(sub="a\nb"), "oidc_token"),
    "long subject": (with_claims(sub="a" * 251), "oidc_token"),
    "expired": (with_claims(exp=lambda now: now - 61), "oidc_clock"),
    "no expiry": (with_claims(exp=None), "oidc_clock"),
    "expiry as a text": (with_claims(exp="2999"), "oidc_clock"),
    "from the future": (with_claims(iat=lambda now: now + 90), "oidc_clock"),
    "old": (with_claims(iat=lambda now: now - 700), "oidc_clock"),
    "no time of issue": (with_claims(iat=None), "oidc_clock"),
    "not valid yet": (with_claims(nbf=lambda now: now + 90), "oidc_clock"),
}


@pytest.mark.parametrize("name", WRONG_TOKENS)
async def test_wrong_id_token_opens_no_session(service: Running, provider: Provider, name: str) -> None:
    change, reason = WRONG_TOKENS[name]
    change(provider)
    async with browser(service) as client:
        answer = await signed_in(client, provider)
    rows = await audited(service)

    assert answer.status_code == 401
    assert (CLOCKS if reason == "oidc_clock" else NOT_VALID) in words_of(answer)
    assert COOKIE not in client.cookies
    assert rows == [("authentication", "", None, reason)]


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": [CLIENT_ID]},
        {"aud": [CLIENT_ID, "other"], "azp": CLIENT_ID},
        {"azp": CLIENT_ID},
        {"nbf": 0},
        {"exp": lambda now: now - 30},
        {"iat": lambda now: now + 30},
    ],
    ids=lambda claims: next(iter(claims)),
)
async def test_claims_within_the_rules_are_accepted(
    service: Running, provider: Provider, claims: dict[str, object]
) -> None:
    with_claims(**claims)(provider)
    async with browser(service) as client:
        answer = await signed_in(client, provider)

    assert answer.status_code == 303
