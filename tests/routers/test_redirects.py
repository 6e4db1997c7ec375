"""Redirect states: a state accepts one unknown token, and a result with another nonce is not stored."""

import asyncio
import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app.config import Settings
from tests.support.api import PAGE, STATEFUL, get, list_tokens, token, url, wait_until_received
from tests.support.redirects import PATH, browse, detect_auth, issue_redirect
from tests.support.service import Running, changed, everything, running
from tests.support.simulator import LiveSimulator


async def test_state_is_unique_and_valid_for_a_day(shared_api: httpx.AsyncClient) -> None:
    one, other = [await issue_redirect(shared_api) for _ in range(2)]
    left = datetime.fromisoformat(one["expires_at"]) - datetime.now(UTC)

    assert {*one} == {"state", "extra", "expires_at"}
    assert (len(one["extra"]), one["extra"] == other["extra"], one["state"] == other["state"]) == (32, False, False)
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)


@pytest.mark.parametrize(
    ("body", "code"), [({"rule_id": "2"}, "no_redirect_state"), ({}, "no_redirect_state"), (None, "no_redirect_state")]
)
async def test_rule_without_redirect_state_gets_no_state(
    shared_api: httpx.AsyncClient, body: dict[str, str] | None, code: str
) -> None:
    answer = await shared_api.post(PATH, json=body)

    assert (answer.status_code, answer.json()["code"]) == (400, code)


async def test_default_rule_of_the_settings_is_used(settings: Settings) -> None:
    answers = []
    for rule_id in (STATEFUL, None):
        own = changed(settings, faceid_rule_id=rule_id)
        async with running(own, with_worker=False) as service, service.client(await service.key(*everything())) as api:
            answers.append(await api.post(PATH))

    assert [answer.status_code for answer in answers] == [201, 400]
    assert answers[1].json()["code"] == "rule_id_required"


async def test_valid_state_accepts_one_unknown_token_before_the_answer(idle_service: Running) -> None:
    async with idle_service.client(await idle_service.key(*everything(), client="shop")) as api:
        state = (await issue_redirect(api))["state"]
        await browse(idle_service, "first", state)
        view = await get(api, "first")
        await browse(idle_service, "second", state)
        await browse(idle_service, "first", state)
        tokens = await list_tokens(api)

    assert (view["state"], view["rule_id"], view["registered_at"]) == ("pending", STATEFUL, None)
    assert view["received_at"] == view["retrieval"]["due_at"]
    assert tokens == ["first"]


@pytest.mark.parametrize(
    "query",
    [
        "state={state}?BizToken={token}",
        "state={state}%3FBizToken%3D{token}",
        "state={state}&amp;BizToken={token}",
        "state={state}&amp%3BBizToken={token}",
        "BizToken={token}%20&state={state}+",
        "BizToken={token}%0D%0A&state={state}%E3%80%80",
        "BizToken={token}%23wechat_redirect&state={state}",
        "token={token}&state={state}",
        "biz_token={token}&State={state}",
        "BizToken=&token={token}&state=&state={state}",
        "BizToken=%FF&BizToken={token}&state={state}",
        "token=own-session&state={state}&BizToken={token}",
        "token=own-session&state={state}?BizToken={token}",
    ],
)
async def test_damaged_query_is_understood(idle_service: Running, query: str) -> None:
    async with idle_service.client(await idle_service.key(*everything())) as api:
        issued, biz_token = await issue_redirect(api), token()
        await visit(idle_service, query.format(state=issued["state"], token=biz_token))

        assert await list_tokens(api) == [biz_token]


async def visit(service: Running, query: str) -> None:
    async with service.client(None) as browser:
        answer = await browser.get(f"/v1/callbacks/redirect?{query}")
    assert (answer.status_code, answer.headers["Location"], answer.content) == (303, PAGE, b"")


async def test_parameter_that_needs_no_repair_wins(idle_service: Running) -> None:
    async with idle_service.client(await idle_service.key(*everything())) as api:
        state = (await issue_redirect(api))["state"]
        await visit(idle_service, f"Extra=%26BizToken%3Dother%26state%3Dother&BizToken=right&state={state}")

        assert await list_tokens(api) == ["right"]


@pytest.mark.parametrize("query", ["state={state}", "state={state}&BizToken=", "state={state}&BizToken=a%20b"])
async def test_valid_state_without_a_token_is_counted_and_logged(idle_service: Running, query: str) -> None:
    async with idle_service.client(await idle_service.key(*everything())) as api:
        state = (await issue_redirect(api))["state"]
        before = await redirects_without_token(api)
        with structlog.testing.capture_logs() as logs:
            await visit(idle_service, query.format(state=state))
            await visit(idle_service, query.format(state="forged"))
        counted = await redirects_without_token(api) - before
        tokens = await list_tokens(api)

    assert (counted, tokens) == (1, [])
    assert [entry for entry in logs if entry["event"] == "redirect_without_token"] == [
        {"event": "redirect_without_token", "log_level": "warning", "rule_id": STATEFUL}
    ]


async def redirects_without_token(api: httpx.AsyncClient) -> float:
    text = (await api.get("/metrics")).text
    found = re.search(f'^faceid_redirects_without_token_total{{rule_id="{STATEFUL}"}} (.*)$', text, re.MULTILINE)
    return float(found.group(1)) if found else 0


async def test_state_is_accepted_from_one_of_many_concurrent_browsers(settings: Settings) -> None:
    async with running(settings, with_worker=False) as service, service.client(await service.key(*everything())) as api:
        state = (await issue_redirect(api))["state"]
        await asyncio.gather(*(browse(service, f"racing-{number}", state) for number in range(20)))
        tokens = await list_tokens(api)

    assert len(tokens) == 1


async def test_used_state_wakes_its_own_token_again(idle_service: Running) -> None:
    async with idle_service.client(await idle_service.key(*everything())) as api:
        state = (await issue_redirect(api))["state"]
        await browse(idle_service, "again", state)
        async with idle_service.services.database.write() as tx:
            await tx.connection.exec_driver_sql("UPDATE verification SET due_at = '2100-01-01'")
        await browse(idle_service, "again")
        await browse(idle_service, "again", (await issue_redirect(api))["state"])
        for _ in range(1000):
            await browse(idle_service, "again", state)
            if (await get(api, "again"))["retrieval"]["due_at"] < "2100":
                return
            await asyncio.sleep(0.01)
    pytest.fail("The token was not woken.")


async def test_invalid_state_wakes_registered_tokens_only(idle_service: Running) -> None:
    async with idle_service.client(await idle_service.key(*everything())) as api:
        state = (await issue_redirect(api))["state"]
        await api.put("/v1/verifications/registered", json={"rule_id": STATEFUL})
        for forged in (None, "", state[:-1], state + "A", state.upper(), state.partition(".")[0], "坏"):
            await browse(idle_service, "unknown", forged)
        await browse(idle_service, "registered", "forged")
        await wait_until_received(api, "registered")

        assert await list_tokens(api) == ["registered"]


async def test_state_is_invalid_once_its_rule_loses_redirect_state(settings: Settings) -> None:
    async with running(settings, with_worker=False) as service, service.client(await service.key(*everything())) as api:
        state = (await issue_redirect(api))["state"]
        settings.rules.rules[STATEFUL].redirect_state = False
        try:
            await browse(service, "unknown", state)
            assert await list_tokens(api) == []
        finally:
            settings.rules.rules[STATEFUL].redirect_state = True


async def test_result_with_the_nonce_is_stored(service: Running, api: httpx.AsyncClient, faceid: LiveSimulator) -> None:
    redirect = await issue_redirect(api)
    biz_token = await detect_auth(faceid, redirect["extra"])
    await browse(service, biz_token, redirect["state"])

    view = await get(api, biz_token, wait=20)

    assert (view["state"], view["outcome"], len(view["media"])) == ("retrieved", "passed", 4)


async def test_result_with_another_nonce_is_not_stored(
    service: Running, api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    attacker, victim = await issue_redirect(api), await issue_redirect(api)
    stolen = [await detect_auth(faceid, victim["extra"]), token()]
    for biz_token in stolen:
        await browse(service, biz_token, (await issue_redirect(api))["state"])
    await browse(service, "unused", attacker["state"])

    for biz_token in stolen:
        view = await get(api, biz_token, wait=20)
        identity = await api.get(f"/v1/verifications/{biz_token}/identity", headers={"X-Purpose": "test"})

        assert (view["state"], view["outcome"], view["media"]) == ("failed", None, [])
        assert view["retrieval"]["last_error_code"] == "reply.foreign"
        assert view["retrieval"]["due_at"] is None
        assert {name for name, value in identity.json().items() if value} == {"biz_token"}
    async with service.services.database.read() as tx:
        rows = await tx.connection.exec_driver_sql(
            "SELECT verification_id FROM detection UNION SELECT verification_id FROM liveness_attempt"
            " UNION SELECT verification_id FROM media"
        )
        assert rows.all() == []
    assert [stored async for stored in service.services.media_store.list()] == []


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=st.text(max_size=200), biz_token=st.text(max_size=40))
async def test_redirect_answers_the_same_for_any_input(shared_service: Running, state: str, biz_token: str) -> None:
    clean = [text.encode(errors="replace").decode() for text in (biz_token, state)]

    await browse(shared_service, *clean)


async def test_redirect_without_the_database_keeps_the_state_valid(
    idle_service: Running, idle_api: httpx.AsyncClient
) -> None:
    database, state = idle_service.services.database, (await issue_redirect(idle_api))["state"]
    async with database.write() as tx:
        await tx.connection.exec_driver_sql("ALTER TABLE verification RENAME TO renamed")
    with structlog.testing.capture_logs() as logs:
        await browse(idle_service, "token", state)
    async with database.write() as tx:
        await tx.connection.exec_driver_sql("ALTER TABLE renamed RENAME TO verification")

    assert [log["log_level"] for log in logs if log["event"] == "redirect_not_recorded"] == ["warning"]
    assert await list_tokens(idle_api) == []
    await browse(idle_service, "token", state)
    assert await list_tokens(idle_api) == ["token"]


async def test_erasure_removes_the_nonces_of_its_verification(
    service: Running, api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    tokens = []
    for _ in range(2):
        redirect = await issue_redirect(api)
        tokens.append(await detect_auth(faceid, redirect["extra"]))
        await browse(service, tokens[-1], redirect["state"])
        await get(api, tokens[-1], wait=20)
    kept, erased = tokens

    assert (await api.delete(url(erased))).status_code == 204

    async with service.services.database.read() as tx:
        found = await tx.connection.execute(text("SELECT biz_token FROM redirect_nonce"))
        assert found.scalars().all() == [kept]
