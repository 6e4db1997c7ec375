"""Only RuleIds that the settings name are accepted, and only from their clients."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import httpx
import pytest

from app.cli.token_files import read_batches
from app.config import Settings
from app.domain.api_key import Scope
from app.domain.rule import DEFAULT_CLIENT
from app.services.backfill import BackfillSummary, RejectedLine
from app.services.rule_settings import RuleSettings
from app.webhooks.signatures import sign
from tests.support.api import SECRETS, get, list_tokens, row_of, token, url
from tests.support.operations import REQUEST_ID
from tests.support.service import Running, changed, everything, running

LENDING, OPEN, STATES = "lending", "open", "states"
RULES = {
    LENDING: RuleSettings(clients=["lender", "broker"], redirect_state=True),
    OPEN: RuleSettings(),
    STATES: RuleSettings(redirect_state=True),
}
UNKNOWN_RULE = {
    "type": "/docs/errors#unknown_rule",
    "title": "Bad Request",
    "status": 400,
    "detail": "This client may not use the RuleId: the operator must name it in [rules] or set ACCEPT_UNKNOWN_RULES.",
    "code": "unknown_rule",
    "request_id": REQUEST_ID,
}
NO_DEFAULT = UNKNOWN_RULE | {
    "type": "/docs/errors#rule_id_required",
    "detail": "rule_id is required, because no default is set for this client.",
    "code": "rule_id_required",
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return changed(settings, accept_unknown_rules=False, faceid_rule_id="1", rules=RULES)


@asynccontextmanager
async def client_of(service: Running, name: str, *scopes: Scope) -> AsyncIterator[httpx.AsyncClient]:
    async with service.client(await service.key(*scopes or everything(), client=name)) as api:
        api.headers["X-Request-Id"] = REQUEST_ID
        yield api


async def notify(api: httpx.AsyncClient, rule_id: str | None) -> list[tuple[int, Any]]:
    """Sends each kind of notice that names a rule, for new tokens, and returns the answers."""
    stated = {} if rule_id is None else {"rule_id": rule_id}
    answers = [
        await api.put(url(token()), json=stated),
        await api.post("/v1/callbacks", json={"BizToken": token()} | stated),
        await api.post("/v1/redirects", json=stated),
    ]
    return [(answer.status_code, answer.json()) for answer in answers]


async def notify_signed(service: Running, rule_id: str) -> tuple[int, Any]:
    """Sends a callback that the client `shop` has signed."""
    now, body = datetime.now(UTC), json.dumps({"BizToken": token(), "RuleId": rule_id}).encode()
    signature = sign(SECRETS["shop"], "msg", now, body)
    headers = {"webhook-id": "msg", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    async with service.client(None) as api:
        headers |= {"Content-Type": "application/json", "X-Request-Id": REQUEST_ID}
        answer = await api.post("/v1/callbacks", content=body, headers=headers)
    return answer.status_code, answer.json()


@pytest.mark.parametrize("rule_id", ["made-up", LENDING], ids=["unknown", "of other clients"])
async def test_rule_that_a_client_may_not_use_is_unknown(idle_service: Running, rule_id: str) -> None:
    async with client_of(idle_service, "shop") as api:
        answers = [*await notify(api, rule_id), await notify_signed(idle_service, rule_id)]
        own = await api.put(url("own"), json={"rule_id": OPEN})
        answers += [
            (answer.status_code, answer.json()) for answer in [await api.put(url("own"), json={"rule_id": rule_id})]
        ]
        filtered = await api.get("/v1/verifications", params={"rule_id": rule_id})
        tokens = await list_tokens(api)

    assert answers == [(400, UNKNOWN_RULE)] * 5
    assert own.status_code == 201
    assert (filtered.status_code, filtered.json(), tokens) == (200, {"items": [], "next_cursor": None}, ["own"])


async def test_rule_is_accepted_from_its_clients(idle_service: Running) -> None:
    statuses = {}
    for client in ("lender", "broker"):
        async with client_of(idle_service, client) as api:
            statuses[client] = [status for status, _ in await notify(api, LENDING)]

    assert statuses == {"lender": [201, 202, 201], "broker": [201, 202, 201]}
    assert (await notify_signed(idle_service, OPEN))[0] == 202


async def test_admin_may_use_every_known_rule(idle_service: Running) -> None:
    async with client_of(idle_service, "operations", Scope.ADMIN) as api:
        put, call_back, state = await notify(api, LENDING)
        unknown = await notify(api, "made-up")

    assert (put[0], call_back[0]) == (201, 202)
    # A state belongs to the client of the key, which may not use the rule.
    assert state == (400, UNKNOWN_RULE)
    assert unknown == [(400, UNKNOWN_RULE)] * 3


async def test_default_rule_is_not_the_default_of_other_clients(settings: Settings) -> None:
    settings = changed(settings, faceid_rule_id=LENDING)
    answers = {}
    async with running(settings, with_worker=False) as service:
        for client in ("lender", "shop"):
            async with client_of(service, client) as api:
                answers[client] = await notify(api, None)

    assert [status for status, _ in answers["lender"]] == [201, 202, 201]
    assert answers["shop"] == [(400, NO_DEFAULT)] * 3


async def test_unknown_rules_are_accepted_if_the_operator_says_so(settings: Settings) -> None:
    async with (
        running(changed(settings, accept_unknown_rules=True), with_worker=False) as service,
        client_of(service, "shop") as api,
    ):
        accepted = [
            (await api.put(url(token()), json={"rule_id": rule_id})).status_code for rule_id in ("made-up", OPEN)
        ]
        foreign = await notify(api, LENDING)

    assert accepted == [201, 201]
    assert foreign == [(400, UNKNOWN_RULE)] * 3


async def test_state_is_invalid_once_its_client_may_not_use_the_rule(settings: Settings) -> None:
    rules = dict(RULES)
    async with (
        running(changed(settings, rules=rules), with_worker=False) as service,
        client_of(service, "shop") as api,
        service.client(None) as browser,
    ):
        states = [(await api.post("/v1/redirects", json={"rule_id": STATES})).json()["state"] for _ in range(2)]
        await browser.get("/v1/callbacks/redirect", params={"BizToken": "before", "state": states[0]})
        rules[STATES] = RuleSettings(redirect_state=True, clients=["lender"])
        answer = await browser.get("/v1/callbacks/redirect", params={"BizToken": "after", "state": states[1]})

        assert (answer.status_code, await list_tokens(api)) == (303, ["before"])


async def test_backfilled_line_with_an_unknown_rule_is_rejected(idle_service: Running) -> None:
    services, summary = idle_service.services, BackfillSummary()
    lines = b"biz_token,rule_id\none,open\ntwo,made-up\nthree,lending\n"

    for batch in read_batches(BytesIO(lines), None, has_default_rule=True):
        await services.backfill.register(DEFAULT_CLIENT, batch, summary)

    assert (summary.new, summary.conflicting) == (1, 2)
    assert summary.problems == [RejectedLine(line, str(UNKNOWN_RULE["detail"])) for line in (3, 4)]


async def test_verification_of_a_rule_that_is_no_longer_known_stays_usable(settings: Settings) -> None:
    biz_token, rules = token(), dict(RULES) | {"old": RuleSettings()}
    async with running(changed(settings, rules=rules)) as service, client_of(service, "shop") as api:
        assert (await api.put(url(biz_token), json={"rule_id": "old"})).status_code == 201
        del rules["old"]
        answers = [
            await api.post("/v1/callbacks", json={"BizToken": biz_token, "RuleId": "old"}),
            await api.post("/v1/callbacks", json={"BizToken": biz_token}),
            await api.put(url(token()), json={"rule_id": "old"}),
        ]
        view = await get(api, biz_token, wait=20)
        identity = await api.get(url(biz_token, "identity"))
        erased = await api.delete(url(biz_token))
        row = await row_of(service.services, biz_token)

    assert [answer.status_code for answer in answers] == [202, 202, 400]
    assert (view["state"], view["rule_id"], identity.status_code, erased.status_code) == ("retrieved", "old", 200, 204)
    assert row.erased_at is not None
