"""The client of a provider: how often it reads keys, how long it waits, whom it trusts, and what it needs."""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.domain.single_sign_on import Flow, new_flow
from app.errors import ConfigurationError, ProviderError, UnauthenticatedError
from app.oidc.client import OidcClient
from app.oidc.settings import OidcSettings
from app.services.clock import now
from tests.support.oidc import SETTINGS, Provider, json_answer, new_key, providing
from tests.support.receiver import receiving
from tests.support.servers import write_certificate

DISCOVERY, TOKEN, KEYS = "/.well-known/openid-configuration", "/token", "/jwks"


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with providing() as started:
        yield started


def settings_of(issuer: str, ca_file: Path | None = None) -> OidcSettings:
    secret = SecretStr(SETTINGS["oidc_client_secret"])
    return OidcSettings(oidc_issuer=issuer, oidc_ca_file=ca_file, **SETTINGS | {"oidc_client_secret": secret})


async def claims_of(client: OidcClient, provider: Provider, flow: Flow | None = None) -> object:
    """Signs in once; returns the subject."""
    flow = flow or new_flow("/admin", now())
    answer = provider.approve(await client.authorization_url(flow))
    code = answer.partition("code=")[2].partition("&")[0]
    return (await client.fetch_claims(code, provider.url, flow, now()))["sub"]


async def test_keys_are_read_again_each_hour_and_for_an_unknown_id_once_a_minute(provider: Provider) -> None:
    seconds = 0.0
    client = OidcClient(settings_of(provider.url), monotonic=lambda: seconds)
    found = [await claims_of(client, provider) for _ in range(3)]
    reads = [provider.paths.count(KEYS)]
    provider.header = {"kid": "forged"}
    for later in (59.0, 61.0, 62.0, 120.0, 122.0):
        seconds = later
        with pytest.raises(UnauthenticatedError) as error:
            await claims_of(client, provider)
        assert error.value.reason == "oidc_key"
        reads.append(provider.paths.count(KEYS))
    provider.header = {}
    for later in (3721.0, 3722.0):
        seconds = later
        await claims_of(client, provider)
        reads.append(provider.paths.count(KEYS))

    assert found == ["person-1"] * 3
    assert reads == [1, 1, 2, 2, 2, 3, 3, 4]
    assert provider.paths.count(DISCOVERY) == 1


async def test_new_key_of_the_provider_is_found_and_an_old_one_forgotten(provider: Provider) -> None:
    seconds = 0.0
    client = OidcClient(settings_of(provider.url), monotonic=lambda: seconds)
    await claims_of(client, provider)
    old, provider.key = provider.key, new_key("second")
    provider.published[:] = [provider.key]
    seconds = 60.0
    found = await claims_of(client, provider)
    provider.key = old
    with pytest.raises(UnauthenticatedError):
        await claims_of(client, provider)

    assert found == "person-1"


async def test_one_malformed_key_does_not_cost_the_others(provider: Provider) -> None:
    documents = [{"kty": "RSA"}, {"kty": "new"}, {}, {"kty": "EC", "crv": "P-256", "x": 1, "y": []}]
    keys = [*documents, provider.key.as_dict(private=False)]
    provider.replies[KEYS] = json_answer({"keys": keys})
    client = OidcClient(settings_of(provider.url))

    assert await claims_of(client, provider) == "person-1"


async def test_token_without_the_id_of_its_key_is_accepted_if_there_is_only_one(provider: Provider) -> None:
    provider.header = {"kid": None}
    client = OidcClient(settings_of(provider.url))
    only = await claims_of(client, provider)
    provider.published.append(new_key("second"))
    with pytest.raises(UnauthenticatedError):
        await claims_of(OidcClient(settings_of(provider.url)), provider)

    assert only == "person-1"


async def test_silent_provider_costs_the_deadline_only(provider: Provider) -> None:
    provider.replies[DISCOVERY] = None
    client = OidcClient(settings_of(provider.url), total_seconds=0.2)
    waits = [client.authorization_url(new_flow("/admin", now())) for _ in range(40)]
    found = await asyncio.gather(*waits, return_exceptions=True)

    assert {type(each) for each in found} == {ProviderError}
    # One call at a time. The next one may begin at the end of the first.
    assert len(provider.paths) < 10


async def test_certificate_of_the_provider_is_verified(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    async with receiving(context) as receiver:
        provider = Provider(receiver, scheme="https")
        for ca_file, is_trusted in ((tmp_path / "certificate.pem", True), (None, False)):
            client = OidcClient(settings_of(provider.url, ca_file))
            if is_trusted:
                await client.check()
            else:
                with pytest.raises(ProviderError) as error:
                    await client.check()
                assert error.value.cause == "The provider cannot be called: ConnectError."


def test_unreadable_certificates_are_an_error_that_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="OIDC_CA_FILE cannot be read as PEM"):
        OidcClient(settings_of("https://provider.test", tmp_path / "missing.pem"))


def test_missing_extra_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "app.oidc.id_tokens", raising=False)
    monkeypatch.setitem(sys.modules, "joserfc", None)
    with pytest.raises(ConfigurationError) as error:
        OidcClient(settings_of("https://provider.test"))

    assert str(error.value) == (
        "OIDC_ISSUER needs the package joserfc. Run `pip install 'faceid-results[oidc]'`, or unset it."
    )
