"""A token that somebody brought with the state of another run stays with its owner, who can claim it."""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import httpx
import pytest

from app.config import Settings
from app.domain.decision import CALL_INTERVAL
from app.domain.redirect_state import FOREIGN
from app.services.rule_settings import RuleSettings
from app.webhooks.signatures import sign
from tests.support.api import SECRETS, STATEFUL, get, list_tokens, row_of, url
from tests.support.redirects import browse, detect_auth, issue_redirect, wait_for_hints
from tests.support.service import Running, changed, everything, running
from tests.support.simulator import LiveSimulator
from tests.support.worker import retrieve_all, retrieve_later, retrieving

Claim = Callable[[Running, httpx.AsyncClient, str, str], Awaitable[object]]


async def by_callback(_: Running, api: httpx.AsyncClient, biz_token: str, __: str) -> httpx.Response:
    return await api.post("/v1/callbacks", json={"BizToken": biz_token})


async def by_registration(_: Running, api: httpx.AsyncClient, biz_token: str, __: str) -> httpx.Response:
    return await api.put(url(biz_token), json={"rule_id": STATEFUL})


async def by_retrieve(_: Running, api: httpx.AsyncClient, biz_token: str, __: str) -> httpx.Response:
    return await api.post(url(biz_token, "retrieve"))


async def by_signature(service: Running, _: httpx.AsyncClient, biz_token: str, __: str) -> httpx.Response:
    now, body = datetime.now(UTC), json.dumps({"BizToken": biz_token}).encode()
    headers = {
        "webhook-id": "msg",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": sign(SECRETS["shop"], "msg", now, body),
        "Content-Type": "application/json",
    }
    async with service.client(None) as api:
        return await api.post("/v1/callbacks", content=body, headers=headers)


async def by_right_state(service: Running, _: httpx.AsyncClient, biz_token: str, state: str) -> None:
    await browse(service, biz_token, state)


CLAIMS = pytest.mark.parametrize(
    "claim", [by_callback, by_registration, by_retrieve, by_signature, by_right_state], ids=lambda claim: claim.__name__
)


class Theft:
    """A token of a run, and the state of another run that an attacker brings with it."""

    def __init__(self, service: Running, biz_token: str, right_state: str, stolen_with: str) -> None:
        self.service, self.biz_token = service, biz_token
        self.right_state, self.wrong_state = right_state, stolen_with

    @classmethod
    async def begin(cls, service: Running, api: httpx.AsyncClient, faceid: LiveSimulator) -> "Theft":
        right, wrong = await issue_redirect(api), await issue_redirect(api)
        biz_token = await detect_auth(faceid, right["extra"])
        await browse(service, biz_token, wrong["state"])
        return cls(service, biz_token, right["state"], wrong["state"])


async def standing(api: httpx.AsyncClient, biz_token: str) -> tuple[str, str | None, int]:
    view = await get(api, biz_token)
    return view["state"], view["outcome"], view["retrieval"]["attempts"]


@CLAIMS
async def test_owner_claims_a_token_whose_result_was_foreign(
    idle_service: Running, faceid: LiveSimulator, claim: Claim
) -> None:
    async with idle_service.client(await idle_service.key(*everything(), client="shop")) as api:
        theft = await Theft.begin(idle_service, api, faceid)
        async with retrieving(idle_service) as retrieval:
            await retrieve_all(retrieval)
            stolen = await get(api, theft.biz_token)
            await claim(idle_service, api, theft.biz_token, theft.right_state)
            claimed = await get(api, theft.biz_token)
        assert await retrieve_later(idle_service, 3) == 1
        view = await get(api, theft.biz_token)

    assert (stolen["state"], stolen["retrieval"]["last_error_code"]) == ("failed", FOREIGN)
    assert stolen["retrieval"]["due_at"] is None
    assert (claimed["state"], claimed["retrieval"]["due_at"] is None) == ("pending", False)
    assert (view["state"], view["outcome"], view["retrieval"]["attempts"], len(view["media"])) == (
        *("retrieved", "passed", 2),
        4,
    )


@CLAIMS
async def test_owner_claims_a_token_before_its_result(
    idle_service: Running, faceid: LiveSimulator, claim: Claim
) -> None:
    async with idle_service.client(await idle_service.key(*everything(), client="shop")) as api:
        theft = await Theft.begin(idle_service, api, faceid)
        await claim(idle_service, api, theft.biz_token, theft.right_state)
        async with retrieving(idle_service) as retrieval:
            await retrieve_all(retrieval)

        assert await standing(api, theft.biz_token) == ("retrieved", "passed", 1)


@CLAIMS
async def test_owner_claims_a_token_while_it_is_fetched(
    idle_service: Running, faceid: LiveSimulator, claim: Claim
) -> None:
    async with idle_service.client(await idle_service.key(*everything(), client="shop")) as api:
        theft = await Theft.begin(idle_service, api, faceid)
        async with retrieving(idle_service) as retrieval:
            (claimed,) = await retrieval.claims.take(1)
            await claim(idle_service, api, theft.biz_token, theft.right_state)
            await retrieval.retrieve.retrieve(claimed)
        # The void call counts for the interval between two calls.
        await retrieve_later(idle_service, CALL_INTERVAL.total_seconds())

        assert (await standing(api, theft.biz_token))[:2] == ("retrieved", "passed")


async def test_browser_alone_does_not_restart_a_foreign_result(idle_service: Running, faceid: LiveSimulator) -> None:
    async with idle_service.client(await idle_service.key(*everything())) as api:
        theft = await Theft.begin(idle_service, api, faceid)
        async with retrieving(idle_service) as retrieval:
            await retrieve_all(retrieval)
            for state in (theft.wrong_state, None, "forged", theft.wrong_state):
                await browse(idle_service, theft.biz_token, state)
                await wait_for_hints()

            assert await retrieve_all(retrieval) == 0
        assert await standing(api, theft.biz_token) == ("failed", None, 1)


async def test_foreign_result_is_restarted_once_per_state(idle_service: Running, faceid: LiveSimulator) -> None:
    calls = []
    async with idle_service.client(await idle_service.key(*everything())) as api:
        theft = await Theft.begin(idle_service, api, faceid)
        wrong = (await issue_redirect(api))["state"]
        for number, state in enumerate((theft.wrong_state, wrong, wrong, theft.right_state)):
            await browse(idle_service, theft.biz_token, state)
            await wait_for_hints()
            calls.append(await retrieve_later(idle_service, 3 * number))
        view = await standing(api, theft.biz_token)

    assert calls == [1, 1, 0, 1]
    assert view == ("retrieved", "passed", 3)


@CLAIMS
async def test_state_of_a_claimed_token_stays_used(idle_service: Running, faceid: LiveSimulator, claim: Claim) -> None:
    async with idle_service.client(await idle_service.key(*everything(), client="shop")) as api:
        theft = await Theft.begin(idle_service, api, faceid)
        await claim(idle_service, api, theft.biz_token, theft.right_state)
        # Another process does not remember which states it has seen.
        async with running(idle_service.services.settings, with_worker=False) as other:
            await browse(other, "another", theft.wrong_state)
            if claim is by_right_state:
                await browse(other, "another", theft.right_state)
        await wait_for_hints()

        assert await list_tokens(api) == [theft.biz_token]


async def test_state_that_an_earlier_version_used_stays_used(idle_service: Running, faceid: LiveSimulator) -> None:
    async with idle_service.client(await idle_service.key(*everything(), client="shop")) as api:
        theft = await Theft.begin(idle_service, api, faceid)
        async with idle_service.services.database.write() as tx:
            await tx.connection.exec_driver_sql("DELETE FROM redirect_nonce")
        async with running(idle_service.services.settings, with_worker=False) as other:
            await by_callback(idle_service, api, theft.biz_token, "")
            await browse(other, "another", theft.wrong_state)

        assert await list_tokens(api) == [theft.biz_token]


async def test_key_states_the_rule_of_a_token_that_came_with_the_state_of_another(settings: Settings) -> None:
    own = changed(settings, rules=dict(settings.rules.rules) | {"2": RuleSettings(), "3": RuleSettings()})
    async with running(own, with_worker=False) as service, service.client(await service.key(*everything())) as api:
        await browse(service, "stolen", (await issue_redirect(api))["state"])
        answers = [await api.put(url("stolen"), json={"rule_id": rule_id}) for rule_id in ("2", "3")]
        row = await row_of(service.services, "stolen")

    assert [answer.status_code for answer in answers] == [200, 409]
    assert (row.rule_id, row.is_rule_assumed, row.nonce) == ("2", False, None)
