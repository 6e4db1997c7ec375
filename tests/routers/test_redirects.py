"""States of redirects: what they let in, once, and what becomes of a token that was put beside another's state."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.config import Settings
from tests.support.api import PAGE, STATEFUL, called_back, get, listed, token
from tests.support.service import Running, everything, running
from tests.support.simulator import Caller, LiveSimulator

URL = "/v1/redirects"


async def issued(api: httpx.AsyncClient) -> dict[str, str]:
    answer = await api.post(URL, json={"rule_id": STATEFUL})
    assert answer.status_code == 201
    told: dict[str, str] = answer.json()
    return told


async def browse(service: Running, biz_token: str, state: str | None = None) -> None:
    """A browser comes back from Tencent."""
    params = {"BizToken": biz_token} | ({} if state is None else {"state": state})
    async with service.client(None) as browser:
        answer = await browser.get("/v1/callbacks/redirect", params=params)
    assert (answer.status_code, answer.headers["Location"], answer.content) == (303, PAGE, b"")


async def detect_auth(faceid: LiveSimulator, extra: str) -> str:
    answer = await Caller(faceid.simulator).call("DetectAuth", {"RuleId": STATEFUL, "Extra": extra})
    biz_token: str = answer["BizToken"]
    return biz_token


async def test_a_state_is_fresh_and_good_for_a_day(shared_api: httpx.AsyncClient) -> None:
    one, other = [await issued(shared_api) for _ in range(2)]
    left = datetime.fromisoformat(one["expires_at"]) - datetime.now(UTC)

    assert {*one} == {"state", "extra", "expires_at"}
    assert (len(one["extra"]), one["extra"] == other["extra"], one["state"] == other["state"]) == (32, False, False)
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)


@pytest.mark.parametrize(
    ("body", "code"), [({"rule_id": "2"}, "no_redirect_state"), ({}, "no_redirect_state"), (None, "no_redirect_state")]
)
async def test_a_rule_that_does_not_say_so_has_no_states(
    shared_api: httpx.AsyncClient, body: dict[str, str] | None, code: str
) -> None:
    answer = await shared_api.post(URL, json=body)

    assert (answer.status_code, answer.json()["code"]) == (400, code)


async def test_the_default_rule_is_the_one_that_is_set(settings: Settings) -> None:
    answers = []
    for rule_id in (STATEFUL, None):
        told = settings.model_copy(update={"faceid_rule_id": rule_id})
        async with running(told, with_worker=False) as service, service.client(await service.key(*everything())) as api:
            answers.append(await api.post(URL))

    assert [answer.status_code for answer in answers] == [201, 400]
    assert answers[1].json()["code"] == "rule_id_required"


async def test_a_good_state_takes_one_unknown_token_in_before_the_answer(idle_service: Running) -> None:
    async with idle_service.client(await idle_service.key(*everything(), client="shop")) as api:
        state = (await issued(api))["state"]
        await browse(idle_service, "first", state)
        view = await get(api, "first")
        await browse(idle_service, "second", state)
        await browse(idle_service, "first", state)
        tokens = await listed(api)

    assert (view["state"], view["rule_id"], view["registered_at"]) == ("pending", STATEFUL, None)
    assert view["received_at"] == view["retrieval"]["due_at"]
    assert tokens == ["first"]


async def test_a_state_is_spent_once_however_many_browsers_bring_it_at_once(settings: Settings) -> None:
    async with running(settings, with_worker=False) as service, service.client(await service.key(*everything())) as api:
        state = (await issued(api))["state"]
        await asyncio.gather(*(browse(service, f"racing-{number}", state) for number in range(20)))
        tokens = await listed(api)

    assert len(tokens) == 1


async def test_the_same_browser_wakes_its_token_again(idle_service: Running) -> None:
    async with idle_service.client(await idle_service.key(*everything())) as api:
        state = (await issued(api))["state"]
        await browse(idle_service, "again", state)
        async with idle_service.services.database.write() as tx:
            await tx.exec_driver_sql("UPDATE verification SET due_at = '2100-01-01'")
        await browse(idle_service, "again")
        await browse(idle_service, "again", (await issued(api))["state"])
        for _ in range(1000):
            await browse(idle_service, "again", state)
            if (await get(api, "again"))["retrieval"]["due_at"] < "2100":
                return
            await asyncio.sleep(0.01)
    pytest.fail("Nobody woke it.")


async def test_without_a_good_state_only_registered_tokens_are_woken(idle_service: Running) -> None:
    async with idle_service.client(await idle_service.key(*everything())) as api:
        state = (await issued(api))["state"]
        await api.put("/v1/verifications/registered", json={"rule_id": STATEFUL})
        for forged in (None, "", state[:-1], state + "A", state.upper(), state.partition(".")[0], "坏"):
            await browse(idle_service, "unknown", forged)
        await browse(idle_service, "registered", "forged")
        await called_back(api, "registered")

        assert await listed(api) == ["registered"]


async def test_a_state_ends_with_its_rules_permission(settings: Settings) -> None:
    async with running(settings, with_worker=False) as service, service.client(await service.key(*everything())) as api:
        state = (await issued(api))["state"]
        settings.rules[STATEFUL].redirect_state = False
        try:
            await browse(service, "unknown", state)
            assert await listed(api) == []
        finally:
            settings.rules[STATEFUL].redirect_state = True


async def test_a_result_with_the_nonce_is_stored(
    service: Running, api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    told = await issued(api)
    biz_token = await detect_auth(faceid, told["extra"])
    await browse(service, biz_token, told["state"])

    view = await get(api, biz_token, wait=20)

    assert (view["state"], view["outcome"], len(view["media"])) == ("retrieved", "passed", 4)


async def test_of_a_result_with_another_nonce_nothing_is_stored(
    service: Running, api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    attacker, victim = await issued(api), await issued(api)
    stolen = [await detect_auth(faceid, victim["extra"]), token()]
    for biz_token in stolen:
        await browse(service, biz_token, (await issued(api))["state"])
    await browse(service, "unused", attacker["state"])

    for biz_token in stolen:
        view = await get(api, biz_token, wait=20)
        identity = await api.get(f"/v1/verifications/{biz_token}/identity", headers={"X-Purpose": "test"})

        assert (view["state"], view["outcome"], view["media"]) == ("failed", None, [])
        assert view["retrieval"]["last_error_code"] == "reply.foreign"
        assert view["retrieval"]["due_at"] is None
        assert {name for name, value in identity.json().items() if value} == {"biz_token"}
    async with service.services.database.read() as tx:
        rows = await tx.exec_driver_sql(
            "SELECT verification_id FROM detection UNION SELECT verification_id FROM liveness_attempt"
            " UNION SELECT verification_id FROM media"
        )
        assert rows.all() == []
    assert [stored async for stored in service.services.media.list()] == []


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=st.text(max_size=200), biz_token=st.text(max_size=40))
async def test_whatever_a_browser_brings_it_sees_the_same(shared_service: Running, state: str, biz_token: str) -> None:
    clean = [text.encode(errors="replace").decode() for text in (biz_token, state)]

    await browse(shared_service, *clean)


async def test_browser_sees_the_same_while_the_database_is_away_and_its_state_stays_good(
    idle_service: Running, idle_api: httpx.AsyncClient
) -> None:
    database, state = idle_service.services.database, (await issued(idle_api))["state"]
    async with database.write() as tx:
        await tx.exec_driver_sql("ALTER TABLE verification RENAME TO elsewhere")
    with structlog.testing.capture_logs() as logs:
        await browse(idle_service, "token", state)
    async with database.write() as tx:
        await tx.exec_driver_sql("ALTER TABLE elsewhere RENAME TO verification")

    assert [log["log_level"] for log in logs if log["event"] == "redirect_not_recorded"] == ["warning"]
    assert await listed(idle_api) == []
    await browse(idle_service, "token", state)
    assert await listed(idle_api) == ["token"]
