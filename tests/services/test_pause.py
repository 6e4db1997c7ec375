"""Pauses: an account with an operator's problem waits, probes detect when it is solved, and no token is lost."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import text

from app.config import Settings
from app.domain import pause
from app.domain.api_key import Scope
from app.domain.pause import Pause
from app.faceid.credentials import AccountSettings
from app.factory import RetrievalServices
from app.services.rule_settings import RuleSettings
from simulator.options import DEMO_CREDENTIALS
from tests.support.api import call_back, get, row_of, token
from tests.support.clocks import FixedClock
from tests.support.databases import wait_for_blocked_sessions
from tests.support.service import Running, running
from tests.support.simulator import LiveSimulator
from tests.support.worker import retrieve_all, retrieving

MISSING = "InvalidParameterValue.RuleIdNotExist"
ARREARS = "error-UnauthorizedOperation.Arrears"
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
Api = httpx.AsyncClient


@pytest.fixture
def clock() -> FixedClock:
    """The clock of the API and the workers, so the time that the test itself takes does not matter."""
    return FixedClock(datetime.now(UTC))


@pytest.fixture
async def idle_service(settings: Settings, clock: FixedClock) -> AsyncIterator[Running]:
    async with running(settings, with_worker=False, clock=clock) as started:
        yield started


class Worker:
    """A worker's services, with a clock that the test moves."""

    def __init__(self, service: Running, retrieval: RetrievalServices, clock: FixedClock) -> None:
        self._service = service
        self.retrieval = retrieval
        self._clock = clock

    async def after(self, span: timedelta) -> int:
        """Moves the clock and returns the number of calls that the worker makes."""
        self._clock.now += span
        return await retrieve_all(self.retrieval)

    async def until_probes_are_allowed(self) -> None:
        """Waits: the database counts the rate of probes in real time, and a fast machine would ask too early."""
        async with self._service.services.database.read() as tx:
            wait = await tx.quota.wait("probes:default")
        await asyncio.sleep(wait.total_seconds())

    async def pauses(self) -> Sequence[Pause]:
        async with self._service.services.database.read() as tx:
            return await tx.pauses.list()


@asynccontextmanager
async def working(service: Running, **settings: object) -> AsyncIterator[Worker]:
    clock = service.services.clock
    assert isinstance(clock, FixedClock)
    async with retrieving(service, None, **settings) as retrieval:
        yield Worker(service, retrieval, clock)


async def states(api: Api, biz_tokens: Sequence[str]) -> Sequence[str]:
    return [(await get(api, biz_token))["state"] for biz_token in biz_tokens]


async def test_arrears_pause_the_account_until_a_probe_succeeds(idle_service: Running, idle_api: Api) -> None:
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
        # The probe uses one of the new verifications, not the refused one.
        assert await worker.after(4 * SECOND) == 1
        assert await worker.pauses() == []
        assert await worker.after(2 * SECOND) == 3

    assert await states(idle_api, [first, *others]) == ["retrieved"] * 4


async def test_probes_back_off_and_paused_verifications_use_no_attempts(idle_service: Running, idle_api: Api) -> None:
    refused = [await call_back(idle_api, ARREARS) for _ in range(3)]
    async with working(idle_service) as worker:
        assert await worker.after(SECOND) == 3
        waiting = [await call_back(idle_api, ARREARS) for _ in range(20)]
        calls = [await worker.after(10 * SECOND) for _ in range(60)]

    assert sum(calls) <= 13
    assert max(calls) == 1
    rows = [await row_of(idle_service.services, biz_token) for biz_token in [*waiting, *refused]]
    assert sum(row.attempts for row in rows) == len(refused) + sum(calls)
    # Each probe uses another verification.
    assert max(row.attempts for row in rows[: len(waiting)]) == 1
    assert await states(idle_api, [*refused, *waiting]) == ["pending"] * 23


async def test_unknown_rule_pauses_that_rule_only(idle_service: Running, idle_api: Api) -> None:
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


async def test_probe_with_another_error_does_not_end_the_pause(idle_service: Running, idle_api: Api) -> None:
    await call_back(idle_api, f"{ARREARS}-x1-http502-x1-passed")
    async with working(idle_service) as worker:
        await worker.after(SECOND)
        assert await worker.after(10 * SECOND) == 1
        assert len(await worker.pauses()) == 1
        await worker.until_probes_are_allowed()
        assert await worker.after(MINUTE) == 1
        assert await worker.pauses() == []


async def test_last_try_before_the_deadline_is_made_despite_a_pause(idle_service: Running, idle_api: Api) -> None:
    refused = await call_back(idle_api, ARREARS)
    created_at = (idle_service.services.clock() - 71 * HOUR).isoformat()
    last = token("passed")
    async with working(idle_service) as worker:
        await worker.after(SECOND)
        await idle_api.put(f"/v1/verifications/{last}", json={"created_at": created_at})
        # Only the probe, which the callback's token takes.
        assert await worker.after(HOUR - 2 * MINUTE) == 1
        assert await states(idle_api, [refused, last]) == ["pending", "pending"]
        await worker.after(MINUTE)

    assert await states(idle_api, [refused, last]) == ["pending", "retrieved"]


async def test_probe_is_taken_by_one_worker(idle_service: Running, idle_api: Api) -> None:
    await call_back(idle_api, ARREARS)
    async with working(idle_service) as worker:
        await worker.after(SECOND)
        (pause,) = await worker.pauses()

    async with idle_service.services.database.write() as tx:
        taken = [await tx.pauses.take_probe(pause, next_at=pause.probe_at + MINUTE) for _ in range(2)]
    assert taken == [True, False]


# On SQLite the workers' transactions run one after the other.
@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_second_of_two_concurrent_probes_is_handed_back(
    idle_service: Running, idle_api: Api, clock: FixedClock
) -> None:
    database = idle_service.services.database
    refused = await call_back(idle_api, f"{ARREARS}-x1-passed")
    async with retrieving(idle_service) as one, retrieving(idle_service) as other:
        await retrieve_all(one)
        waiting = [await call_back(idle_api, "passed") for _ in range(3)]
        clock.now += MINUTE
        async with database.write() as tx:
            await tx.connection.execute(text("SELECT * FROM pause FOR UPDATE"))
            taking = asyncio.gather(one.claims.take(1), other.claims.take(1))
            # Each has claimed a verification, and both want the probe.
            await wait_for_blocked_sessions(database, 2)
        (claim,) = [claim for claims in await taking for claim in claims]

        rows = [await row_of(idle_service.services, biz_token) for biz_token in [refused, *waiting]]
        assert claim.probe is not None
        assert [row.biz_token for row in rows if row.is_leased] == [claim.verification.biz_token]
        assert sorted(row.claim for row in rows) == [0, 1, 1, 1]  # one was handed back
        await one.retrieve.retrieve(claim)
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


async def test_pause_of_one_account_does_not_delay_another(
    idle_service: Running, idle_api: Api, faceid: LiveSimulator
) -> None:
    await call_back(idle_api, ARREARS)
    other = token("passed")
    # The settings of the API lack the rule; the worker's have it.
    await idle_api.post("/v1/callbacks", json={"BizToken": other, "RuleId": "2"})

    async with working(idle_service, **two_accounts(faceid)) as worker:
        assert await worker.after(SECOND) == 2
        assert (await row_of(idle_service.services, other)).account == "bank"
        assert [pause.account for pause in await worker.pauses()] == ["default"]

    assert (await get(idle_api, other))["state"] == "retrieved"


async def test_pause_is_reported_with_advice_in_log_and_readiness(idle_service: Running, idle_api: Api) -> None:
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
    async with idle_service.client(await idle_service.key(Scope.ADMIN)) as admin:
        (warning,) = (await admin.get("/readyz")).json()["warnings"]
        metrics = (await admin.get("/metrics")).text
    assert warning.startswith("Account default is paused since 20")
    assert warning.endswith(f"Z: UnauthorizedOperation.Arrears. {advice}")
    assert 'faceid_paused{account="default",error_code="UnauthorizedOperation.Arrears",rule_id=""} 1.0' in metrics
    assert biz_token not in metrics + repr(logs)


@pytest.mark.parametrize(
    ("hours", "less_than_24", "less_than_6", "levels"),
    [(40, 0, 0, []), (50, 1, 0, ["warning"]), (67, 1, 1, ["error", "warning"])],
)
async def test_approaching_deadline_raises_an_alarm(
    idle_service: Running, idle_api: Api, hours: int, less_than_24: int, less_than_6: int, levels: Sequence[str]
) -> None:
    created_at = (idle_service.services.clock() - hours * HOUR).isoformat()
    await idle_api.put(f"/v1/verifications/{token('passed')}", json={"created_at": created_at})

    with structlog.testing.capture_logs() as logs:
        await idle_service.services.health.alarm()

    assert [entry["log_level"] for entry in logs if entry["event"] == "deadline_near"] == levels
    metrics = (await idle_api.get("/metrics")).text
    assert f'faceid_pending_verifications{{less_than_hours="24"}} {less_than_24}.0' in metrics
    assert f'faceid_pending_verifications{{less_than_hours="6"}} {less_than_6}.0' in metrics


async def test_verification_of_a_removed_account_moves_to_the_default_one(
    idle_service: Running, idle_api: Api, faceid: LiveSimulator, clock: FixedClock
) -> None:
    accounts = two_accounts(faceid)
    biz_token = token("unfinished-1")
    await idle_api.post("/v1/callbacks", json={"BizToken": biz_token, "RuleId": "2"})
    async with working(idle_service, **accounts) as worker:
        await worker.after(SECOND)
        await worker.after(SECOND)
    assert (await row_of(idle_service.services, biz_token)).account == "bank"

    clock.now += MINUTE
    async with retrieving(idle_service) as retrieval:
        assert await retrieve_all(retrieval) == 0
        await retrieval.claims.adopt()
        assert await retrieve_all(retrieval) == 1

    assert (await get(idle_api, biz_token))["state"] == "retrieved"


async def test_each_account_has_its_own_concurrency_limit(
    idle_service: Running, idle_api: Api, faceid: LiveSimulator
) -> None:
    for rule_id in ("1", "2") * 3:
        await idle_api.post("/v1/callbacks", json={"BizToken": token("passed"), "RuleId": rule_id})
    async with retrieving(idle_service, **two_accounts(faceid)) as retrieval:
        # This assigns each verification to the account of its rule.
        await retrieval.claims.hand_back(await retrieval.claims.take(16))
        first = await retrieval.claims.take(2)
        more = await retrieval.claims.take(3, held=first)

    assert [claim.account.name for claim in first] == ["default"] * 2 + ["bank"] * 2
    assert [claim.account.name for claim in more] == ["default", "bank"]


async def test_each_paused_rule_is_probed_by_its_turn(idle_service: Running, idle_api: Api) -> None:
    await refuse_rules(idle_api, 20, "-x1-illegal")
    async with working(idle_service) as worker:
        assert [await worker.after(SECOND) for _ in range(2)] == [16, 4]
        assert len(await worker.pauses()) == 20
        calls = []
        while await worker.pauses():
            calls.append(await worker.after(10 * SECOND))

    # The quota of probes uses the real clock, so some claims take none.
    assert (sum(calls), max(calls)) == (20, 1)


async def test_rules_beyond_twenty_are_retried_late_instead_of_paused(idle_service: Running, idle_api: Api) -> None:
    biz_tokens = await refuse_rules(idle_api, 25)
    async with working(idle_service) as worker:
        assert [await worker.after(SECOND) for _ in range(2)] == [16, 9]
        assert len(await worker.pauses()) == 20
        rows = [await row_of(idle_service.services, biz_token) for biz_token in biz_tokens]
        soon = [row for row in rows if row.due_at and row.due_at < idle_service.services.clock() + 10 * MINUTE]
        assert len(soon) == 20

    assert (await idle_api.get("/readyz")).json()["warning_count"] == 20


async def test_probes_leave_most_of_the_quota_to_fresh_work(idle_service: Running, idle_api: Api) -> None:
    await refuse_rules(idle_api, 10)
    async with working(idle_service) as worker:
        assert await worker.after(SECOND) == 10
        # The next probe may be made in a minute of the real clock.
        async with idle_service.services.database.write() as tx:
            await tx.quota.reserve("probes:default", interval=MINUTE, slots=1)
        fresh = [await call_back(idle_api, "passed") for _ in range(3)]
        assert await worker.after(HOUR) == 3
        assert await states(idle_api, fresh) == ["retrieved"] * 3
        assert len(await worker.pauses()) == 10


async def test_pause_without_tokens_ends(idle_service: Running) -> None:
    services = idle_service.services
    gone = pause.begin("default", "404", MISSING, services.clock())
    async with services.database.write() as tx:
        await tx.pauses.begin(gone)
    async with retrieving(idle_service, services.clock) as retrieval:
        await retrieval.pauses.settle()

    async with services.database.read() as tx:
        assert await tx.pauses.list() == []


async def test_tokens_of_a_missing_rule_fail_after_hours(
    idle_service: Running, idle_api: Api, clock: FixedClock
) -> None:
    called, waiting = (await refuse_rules(idle_api, 1))[0], token("passed")
    disabled = token("error-InvalidParameterValue.RuleIdDisabled-passed")
    async with working(idle_service) as worker:
        assert await worker.after(SECOND) == 1
        await idle_api.post("/v1/callbacks", json={"BizToken": waiting, "RuleId": "000"})
        await idle_api.post("/v1/callbacks", json={"BizToken": disabled, "RuleId": "9"})
        await worker.after(SECOND)
        for hours, state in ((3.5, "pending"), (7, "failed")):
            clock.now += hours * HOUR
            await worker.retrieval.pauses.settle()
            assert await states(idle_api, [called, waiting, disabled]) == [state, state, "pending"]

    row = await row_of(idle_service.services, waiting)
    assert (row.attempts, row.due_at, row.last_error_code) == (0, None, MISSING)
    assert (await idle_api.post(f"/v1/verifications/{waiting}/retrieve")).json()["state"] == "pending"


async def refuse_rules(api: Api, count: int, then: str = "") -> Sequence[str]:
    """Calls back a token for each of so many rules that Tencent refuses."""
    biz_tokens = [token(f"error-{MISSING}{then}") for _ in range(count)]
    for number, biz_token in enumerate(biz_tokens):
        await api.post("/v1/callbacks", json={"BizToken": biz_token, "RuleId": f"{number:03}"})
    return biz_tokens
