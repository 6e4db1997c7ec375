"""The default rule is an assumption: a statement replaces it, and contradicting statements are rejected."""

from datetime import timedelta
from io import BytesIO

import httpx
import pytest

from app.cli.token_files import read_batches
from app.config import Settings
from app.faceid.credentials import AccountSettings
from app.services.backfill import BackfillSummary
from app.services.rule_settings import RuleSettings
from tests.support.api import get, row_of, token, url
from tests.support.service import Running, changed, everything, running
from tests.support.simulator import LiveSimulator


async def rejected_token(api: httpx.AsyncClient) -> str:
    """Returns a token that was called back without a rule and rejected under the default rule."""
    biz_token = token("illegal-x1-passed")
    await api.post("/v1/callbacks", json={"BizToken": biz_token})
    assert (await get(api, biz_token, wait=20))["state"] == "failed"
    return biz_token


async def test_registration_replaces_the_rule_that_a_callback_assumed(api: httpx.AsyncClient) -> None:
    biz_token = await rejected_token(api)

    answer = await api.put(url(biz_token), json={"rule_id": "9"})
    view = await get(api, biz_token, wait=20)

    assert (answer.status_code, answer.json()["rule_id"], answer.json()["state"]) == (200, "9", "pending")
    assert (view["rule_id"], view["outcome"], view["retrieval"]["attempts"]) == ("9", "passed", 2)


async def test_callback_replaces_the_rule_that_a_registration_assumed(idle_api: httpx.AsyncClient) -> None:
    await idle_api.put(url("nine-1"), json={"subject_ref": "loan-1"})

    answer = await idle_api.post("/v1/callbacks", json={"BizToken": "nine-1", "RuleId": "9"})
    view = await get(idle_api, "nine-1")

    assert answer.status_code == 202
    assert (view["rule_id"], view["subject_ref"]) == ("9", "loan-1")


@pytest.mark.parametrize(("first", "statuses"), [("1", [409, 409, 200]), (None, [200, 409, 409])])
async def test_second_statement_that_contradicts_the_first_is_rejected(
    idle_api: httpx.AsyncClient, first: str | None, statuses: list[int]
) -> None:
    await idle_api.post("/v1/callbacks", json={"BizToken": "two", "RuleId": first})

    answers = [await idle_api.put(url("two"), json={"rule_id": rule_id}) for rule_id in ("9", "8", "1")]

    assert [answer.status_code for answer in answers] == statuses


async def test_assumption_that_is_confirmed_is_a_statement(idle_api: httpx.AsyncClient) -> None:
    await idle_api.post("/v1/callbacks", json={"BizToken": "confirmed"})
    await idle_api.put(url("confirmed"), json={"rule_id": "1"})

    assert (await idle_api.put(url("confirmed"), json={"rule_id": "9"})).status_code == 409


async def test_account_and_retention_follow_the_stated_rule(settings: Settings, faceid: LiveSimulator) -> None:
    accounts = {"bank": AccountSettings(endpoint=faceid.url)}
    rules = {"9": RuleSettings(account="bank", retention_days=9, media_retention_days=5)}
    own = changed(settings, accounts=accounts, rules=rules)
    async with running(own, with_worker=False) as service, service.client(await service.key(*everything())) as api:
        await api.post("/v1/callbacks", json={"BizToken": "moved"})
        await api.put(url("moved"), json={"rule_id": "9"})
        row = await row_of(service.services, "moved")

    assert row.received_at is not None
    assert (row.account, row.erase_at) == ("bank", row.retain_media_until)
    assert row.retain_media_until - row.received_at == timedelta(days=5)
    assert row.retain_until - row.received_at == timedelta(days=9)


@pytest.mark.parametrize(("stated", "rule_id", "is_assumed"), [(None, "1", True), ("9", "9", False)])
async def test_backfilled_rule_is_assumed_only_if_nothing_states_it(
    idle_service: Running, *, stated: str | None, rule_id: str, is_assumed: bool
) -> None:
    services = idle_service.services

    for batch in read_batches(BytesIO(b"filled"), stated, has_default_rule=True):
        await services.backfill.register("default", batch, BackfillSummary())

    row = await row_of(services, "filled")
    assert (row.rule_id, row.is_rule_assumed) == (rule_id, is_assumed)
