"""An operator's problem is not the token's: the account waits, one probe finds out when it is over, nothing is lost."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import text

from app.domain import pause
from app.domain.pause import Pause
from app.faceid.credentials import AccountSettings
from app.services.retrieve import RetrieveService
from app.services.rules import RuleSettings
from app.storage.database import Database
from app.storage.pauses import PauseStore
from simulator.options import DEMO_CREDENTIALS
from tests.support.api import call_back, get, row_of, token
from tests.support.clocks import ShiftedClock
from tests.support.service import Running
from tests.support.simulator import LiveSimulator
from tests.support.worker import retrieve_all, retrieving

ARREARS = "error-UnauthorizedOperation.Arrears"
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
Api = httpx.AsyncClient


class Worker:
    """A worker's service, and the clock it goes by."""

    def __init__(self, service: Running, retrieval: RetrieveService, clock: ShiftedClock) -> None:
        self._service = service
        self._retrieval = retrieval
        self._clock = clock

    async def after(self, span: timedelta) -> int:
        """How many calls it makes when the clock is turned."""
        self._clock.ahead += span
        return await retrieve_all(self._retrieval)

    async def pauses(self) -> Sequence[Pause]:
        async with self._service.services.database.read() as tx:
            return await PauseStore().list(tx)


@asynccontextmanager
async def working(service: Running, **settings: object) -> AsyncIterator[Worker]:
    clock = ShiftedClock()
    async with retrieving(service, clock, **settings) as retrieval:
        yield Worker(service, retrieval, clock)


async def states(api: Api, biz_tokens: Sequence[str]) -> Sequence[str]:
    return [(await get(api, biz_token))["state"] for biz_token in biz_tokens]


async def test_arrears_pause_the_account_one_probe_at_a_time_finds_out_when_they_are_paid(
    idle_service: Running, idle_api: Api
) -> None:
    first = await call_back(idle_api, f"{ARREARS}-x1-passed")
    async with working(idle_service) as worker:
        assert await worker.after(SECOND) == 1
        others = [await call_back(idle_api, "passed") for _ in range(3)]
        (pause,) = await worker.pauses()
        assert (pause.account, pause.rule_id, pause.error_code) == (
            "default",
            None,
            "UnauthorizedOperation.Arrears",
        )
        assert await worker.after(2 * SECOND) == 0
        assert await worker.after(4 * SECOND) == 1  # the probe; what came meanwhile goes before what was refused
        assert await worker.pauses() == []
        assert await worker.after(2 * SECOND) == 3

    assert await states(idle_api, [first, *others]) == ["retrieved"] * 4


async def test_probes_become_one_a_minute_and_what_waits_burns_no_attempts(
    idle_service: Running, idle_api: Api
) -> None:
    refused = [await call_back(idle_api, ARREARS) for _ in range(3)]
    async with working(idle_service) as worker:
        assert await worker.after(SECOND) == 3
        waiting = [await call_back(idle_api, ARREARS) for _ in range(20)]
        calls = [await worker.after(10 * SECOND) for _ in range(60)]

    assert sum(calls) <= 13
    assert max(calls) == 1
    rows = [await row_of(idle_service.services, biz_token) for biz_token in waiting]
    assert sum(row.attempts for row in rows) == sum(calls)  # each probe takes another one
    assert max(row.attempts for row in rows) == 1
    assert await states(idle_api, [*refused, *waiting]) == ["pending"] * 23


async def test_a_rule_that_does_not_exist_pauses_itself_only(idle_service: Running, idle_api: Api) -> None:
    wrong = token("error-InvalidParameterValue.RuleIdNotExist-x1-passed")
    await idle_api.post("/v1/callbacks", json={"BizToken": wrong, "RuleId": "404"})
    async with working(idle_service) as worker:
        assert await worker.after(SECOND) == 1
        others = [await call_back(idle_api, "passed") for _ in range(3)]
        later = token("passed")
        await idle_api.post("/v1/callbacks", json={"BizToken": later, "RuleId": "404"})
        assert await worker.after(SECOND) == 3
        assert [(pause.account, pause.rule_id) for pause in await worker.pauses()] == [("default", "404")]
        assert await states(idle_api, [wrong, later, *others]) == ["pending"] * 2 + ["retrieved"] * 3

        assert await worker.after(5 * SECOND) == 1
        assert await worker.pauses() == []
        assert await worker.after(SECOND) == 1

    assert await states(idle_api, [wrong, later]) == ["retrieved"] * 2


async def test_trouble_of_another_kind_does_not_end_a_pause(idle_service: Running, idle_api: Api) -> None:
    await call_back(idle_api, f"{ARREARS}-x1-http502-x1-passed")
    async with working(idle_service) as worker:
        await worker.after(SECOND)
        assert await worker.after(10 * SECOND) == 1
        assert len(await worker.pauses()) == 1
        assert await worker.after(MINUTE) == 1
        assert await worker.pauses() == []


async def test_a_last_try_is_made_before_the_deadline_also_while_everything_is_paused(
    idle_service: Running, idle_api: Api
) -> None:
    refused = await call_back(idle_api, f"{ARREARS}-x1-passed")
    created_at = (ShiftedClock()() - 71 * HOUR).isoformat()
    last = token("passed")
    async with working(idle_service) as worker:
        await worker.after(SECOND)
        await idle_api.put(f"/v1/verifications/{last}", json={"created_at": created_at})
        (pause,) = await worker.pauses()
        await postpone(idle_service, pause)
        assert await worker.after(HOUR - 2 * MINUTE) == 0
        assert await worker.after(MINUTE) == 1

    assert await states(idle_api, [refused, last]) == ["pending", "retrieved"]


async def postpone(service: Running, pause: Pause) -> None:
    async with service.services.database.write() as tx:
        assert await PauseStore().take_probe(tx, pause, next_at=pause.probe_at + 24 * HOUR)


async def test_a_probe_is_made_by_one_worker(idle_service: Running, idle_api: Api) -> None:
    await call_back(idle_api, ARREARS)
    async with working(idle_service) as worker:
        await worker.after(SECOND)
        (pause,) = await worker.pauses()

    async with idle_service.services.database.write() as tx:
        taken = [await PauseStore().take_probe(tx, pause, next_at=pause.probe_at + MINUTE) for _ in range(2)]
    assert taken == [True, False]


async def wait_for_locks(database: Database, count: int) -> None:
    """Returns when so many sessions of the database wait for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    for _ in range(1000):
        async with database.read() as tx:
            if await tx.scalar(text(waiting)) == count:
                return
        await asyncio.sleep(0.01)
    pytest.fail("They do not wait.")


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)  # SQLite lets one worker in after the other
async def test_of_two_workers_that_probe_at_once_one_hands_back(idle_service: Running, idle_api: Api) -> None:
    database = idle_service.services.database
    refused = await call_back(idle_api, f"{ARREARS}-x1-passed")
    clock = ShiftedClock()
    async with retrieving(idle_service, clock) as one, retrieving(idle_service, clock) as other:
        await retrieve_all(one)
        waiting = [await call_back(idle_api, "passed") for _ in range(3)]
        clock.ahead = MINUTE
        async with database.write() as tx:
            await tx.execute(text("SELECT * FROM pause FOR UPDATE"))
            taking = asyncio.gather(one.claims.take(1), other.claims.take(1))
            await wait_for_locks(database, 2)  # each has claimed a verification, and both want the probe
        (claim,) = [claim for claims in await taking for claim in claims]

        rows = [await row_of(idle_service.services, biz_token) for biz_token in [refused, *waiting]]
        assert claim.probe is not None
        assert [row.biz_token for row in rows if row.leased] == [claim.verification.biz_token]
        assert sorted(row.claim for row in rows) == [0, 1, 1, 1]  # one was claimed and handed back
        await one.retrieve(claim)
        while await retrieve_all(other):
            pass

    assert await states(idle_api, [refused, *waiting]) == ["retrieved"] * 4


def two_accounts(faceid: LiveSimulator) -> dict[str, Any]:
    bank = AccountSettings(
        secret_id=DEMO_CREDENTIALS.secret_id,
        secret_key=SecretStr(DEMO_CREDENTIALS.secret_key),
        endpoint=faceid.url,
        requests_per_second=1000,
    )
    return {"accounts": {"bank": bank}, "rules": {"2": RuleSettings(account="bank")}}


async def test_accounts_do_not_wait_for_each_other(idle_service: Running, idle_api: Api, faceid: LiveSimulator) -> None:
    await call_back(idle_api, ARREARS)
    other = token("passed")
    await idle_api.post("/v1/callbacks", json={"BizToken": other, "RuleId": "2"})  # the API does not know the rule

    async with working(idle_service, **two_accounts(faceid)) as worker:
        assert await worker.after(SECOND) == 2
        assert (await row_of(idle_service.services, other)).account == "bank"
        assert [pause.account for pause in await worker.pauses()] == ["default"]

    assert (await get(idle_api, other))["state"] == "retrieved"


async def test_an_operator_hears_what_to_do(idle_service: Running, idle_api: Api) -> None:
    biz_token = await call_back(idle_api, ARREARS)
    with structlog.testing.capture_logs() as logs:
        async with working(idle_service) as worker:
            await worker.after(SECOND)
        await idle_service.services.health.alarm()

    advice = "Pay the Tencent Cloud account's bill."
    assert [(entry["event"], entry["advice"]) for entry in logs if "advice" in entry] == [
        ("paused", advice),
        ("still_paused", advice),
    ]
    ready = (await idle_api.get("/readyz")).json()
    assert ready["status"] == "ok"
    (warning,) = ready["warnings"]
    assert warning.startswith("Account default is paused since 20")
    assert warning.endswith(f"Z: UnauthorizedOperation.Arrears. {advice}")
    metrics = (await idle_api.get("/metrics")).text
    assert 'faceid_paused{account="default",error_code="UnauthorizedOperation.Arrears",rule_id=""} 1.0' in metrics
    assert biz_token not in metrics + repr(logs)


@pytest.mark.parametrize(
    ("hours", "less_than_24", "less_than_6", "levels"),
    [(40, 0, 0, []), (50, 1, 0, ["warning"]), (67, 1, 1, ["error", "warning"])],
)
async def test_deadlines_that_come_near_raise_an_alarm(
    idle_service: Running, idle_api: Api, hours: int, less_than_24: int, less_than_6: int, levels: Sequence[str]
) -> None:
    created_at = (ShiftedClock()() - hours * HOUR).isoformat()
    await idle_api.put(f"/v1/verifications/{token('passed')}", json={"created_at": created_at})

    with structlog.testing.capture_logs() as logs:
        await idle_service.services.health.alarm()

    assert [entry["log_level"] for entry in logs if entry["event"] == "deadline_near"] == levels
    metrics = (await idle_api.get("/metrics")).text
    assert f'faceid_pending_verifications{{less_than_hours="24"}} {less_than_24}.0' in metrics
    assert f'faceid_pending_verifications{{less_than_hours="6"}} {less_than_6}.0' in metrics


async def test_what_waits_for_an_account_that_is_gone_goes_to_the_default_one(
    idle_service: Running, idle_api: Api, faceid: LiveSimulator
) -> None:
    accounts = two_accounts(faceid)
    biz_token = token("unfinished-1")
    await idle_api.post("/v1/callbacks", json={"BizToken": biz_token, "RuleId": "2"})
    async with working(idle_service, **accounts) as worker:
        await worker.after(SECOND)
        await worker.after(SECOND)
    assert (await row_of(idle_service.services, biz_token)).account == "bank"

    clock = ShiftedClock()
    clock.ahead = MINUTE
    async with retrieving(idle_service, clock) as retrieval:
        assert await retrieve_all(retrieval) == 0
        await retrieval.claims.adopt()
        assert await retrieve_all(retrieval) == 1

    assert (await get(idle_api, biz_token))["state"] == "retrieved"


async def test_each_account_has_as_many_calls_at_a_time_as_it_may(
    idle_service: Running, idle_api: Api, faceid: LiveSimulator
) -> None:
    for rule_id in ("1", "2") * 3:
        await idle_api.post("/v1/callbacks", json={"BizToken": token("passed"), "RuleId": rule_id})
    async with retrieving(idle_service, **two_accounts(faceid)) as retrieval:
        await retrieval.claims.hand_back(await retrieval.claims.take(16))  # all are where they belong now
        first = await retrieval.claims.take(2)
        more = await retrieval.claims.take(3, held=first)

    assert [claim.account.name for claim in first] == ["default"] * 2 + ["bank"] * 2
    assert [claim.account.name for claim in more] == ["default", "bank"]


async def test_however_many_rules_are_paused_each_is_probed_and_none_outlives_its_tokens(
    idle_service: Running, idle_api: Api
) -> None:
    for number in range(20):
        wrong = token("error-InvalidParameterValue.RuleIdNotExist-x1-illegal")
        await idle_api.post("/v1/callbacks", json={"BizToken": wrong, "RuleId": f"{number:03}"})
    async with working(idle_service) as worker:
        assert [await worker.after(SECOND) for _ in range(2)] == [16, 4]
        assert len(await worker.pauses()) == 20
        assert sorted([await worker.after(10 * SECOND), await worker.after(SECOND)]) == [4, 16]
        assert await worker.pauses() == []

        gone = pause.begin("default", "404", "InvalidParameterValue.RuleIdNotExist", ShiftedClock()())
        async with idle_service.services.database.write() as tx:
            await PauseStore().begin(tx, gone)
        assert await worker.after(MINUTE) == 0
        assert await worker.pauses() == []
