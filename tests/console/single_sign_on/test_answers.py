"""The answers that a browser brings from the provider: which are refused, and how often one may try."""

import pytest

from app.console.visits import COOKIE
from app.domain.single_sign_on import FLOW_LIFETIME
from tests.support.clocks import ShiftedClock
from tests.support.console import audited, browser, words_of
from tests.support.oidc import ELSEWHERE, FLOW, NOT_VALID, Provider, shown, signed_in
from tests.support.service import Running


@pytest.mark.parametrize(
    ("changes", "status", "sentence", "reason"),
    [
        ({"state": "other"}, 401, ELSEWHERE, "oidc_state"),
        ({"state": None}, 401, ELSEWHERE, "oidc_state"),
        ({"iss": "https://other.test"}, 401, NOT_VALID, "oidc_answer"),
        ({"iss": None}, 401, NOT_VALID, "oidc_answer"),
        ({"code": None}, 401, NOT_VALID, "oidc_answer"),
        ({"code": "x" * 5000}, 401, NOT_VALID, "oidc_answer"),
        ({"code": "forged"}, 401, NOT_VALID, "oidc_code"),
        ({"error": "access_denied", "error_description": "Anna <b>"}, 403, "was cancelled or denied", "oidc_denied"),
        ({"error": "server_error", "code": None}, 401, NOT_VALID, "oidc_answer"),
        ({"error": "access_denied", "state": "other"}, 401, ELSEWHERE, "oidc_state"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_wrong_answer_of_the_browser_opens_no_session(
    service: Running, provider: Provider, changes: dict[str, str | None], status: int, sentence: str, reason: str
) -> None:
    async with browser(service) as client:
        answer = await signed_in(client, provider, "", **changes)
    rows = await audited(service)

    assert (answer.status_code, sentence in words_of(answer)) == (status, True)
    assert COOKIE not in client.cookies
    assert FLOW not in client.cookies
    assert rows == [("authentication", "", None, reason)]
    assert "Anna" not in answer.text


async def test_provider_that_does_not_announce_its_issuer_may_leave_it_out(
    service: Running, provider: Provider
) -> None:
    provider.metadata = {"authorization_response_iss_parameter_supported": False}
    async with browser(service) as client:
        answers = [await signed_in(client, provider, iss=issuer) for issuer in (None, "https://other.test")]

    assert [answer.status_code for answer in answers] == [303, 401]


async def test_answer_is_bound_to_its_browser_and_used_once(service: Running, provider: Provider) -> None:
    async with browser(service) as client, browser(service) as victim:
        begin = await client.get("/admin/login/oidc")
        flow = client.cookies[FLOW]
        url = provider.approve(begin.headers["Location"])
        elsewhere = await shown(victim, await victim.get(url))
        await victim.get("/admin/login/oidc")
        forged = await shown(victim, await victim.get(url))
        first = await client.get(url)
        again = await shown(client, await client.get(url))
        replayed = await shown(client, await client.get(url, headers={"Cookie": f"{FLOW}={flow}"}))

    assert [answer.status_code for answer in (elsewhere, forged, first, again, replayed)] == [401, 401, 303, 401, 401]
    assert all(ELSEWHERE in words_of(answer) for answer in (elsewhere, forged, again, replayed))
    assert provider.paths.count("/token") == 1


@pytest.mark.parametrize("flow", ["", "x", "!", "密", "AAAA", "A" * 100, "A" * 5000])
async def test_forged_flow_is_refused(service: Running, provider: Provider, flow: str) -> None:
    async with browser(service) as client:
        headers = {b"Cookie": f"{FLOW}={flow}".encode()}
        answer = await shown(client, await client.get("/admin/login/oidc/callback?code=1&state=", headers=headers))

    assert (answer.status_code, provider.paths) == (401, [])


async def test_sign_in_that_takes_too_long_begins_again(
    clocked: tuple[Running, ShiftedClock], provider: Provider
) -> None:
    service, clock = clocked
    async with browser(service) as client:
        begin = await client.get("/admin/login/oidc")
        clock.ahead += FLOW_LIFETIME
        answer = await shown(client, await client.get(provider.approve(begin.headers["Location"])))

    assert (answer.status_code, ELSEWHERE in words_of(answer)) == (401, True)
    assert provider.paths == ["/.well-known/openid-configuration"]


async def test_network_with_failed_attempts_must_wait(service: Running, provider: Provider) -> None:
    async with browser(service) as client:
        statuses = [(await signed_in(client, provider, code="forged")).status_code for _ in range(6)]
        good = await signed_in(client, provider)
    rows = await audited(service)

    assert statuses == [401] * 5 + [429]
    assert good.status_code == 429
    assert rows == [("authentication", "", None, "oidc_code")]
    assert provider.paths.count("/token") == 5


async def test_answers_that_other_sites_send_use_up_no_attempts(service: Running, provider: Provider) -> None:
    async with browser(service) as client:
        url = "/admin/login/oidc/callback?code=1&state=1"
        forged = [(await shown(client, await client.get(url))).status_code for _ in range(6)]
        forged += [(await signed_in(client, provider, state="x")).status_code for _ in range(6)]
        good = await signed_in(client, provider)
    rows = await audited(service)

    assert (forged, good.status_code) == ([401] * 12, 303)
    assert [outcome for _, _, _, outcome in rows] == ["oidc_state", "done"]
