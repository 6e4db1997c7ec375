"""What nobody told us of is found on Tencent's bill: once, page by page, and only for our rules."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import structlog
from sqlalchemy import text

from app.config import Settings
from app.factory import open_accounts, reconciliation
from app.services.reconcile import ReconcileService
from app.services.rules import RuleSettings
from simulator.options import SimulatorOptions
from tests.support.api import token
from tests.support.service import Running, everything, running
from tests.support.simulator import LiveSimulator, live_simulator
from tests.support.worker import retrieve_all, retrieving

DAY_BEFORE_YESTERDAY = datetime.now(UTC) - timedelta(days=2)  # whose bill is there at any hour of today


@pytest.fixture(scope="module")
def tencent() -> Iterator[LiveSimulator]:
    with live_simulator(SimulatorOptions(bills_per_page=2)) as live:
        yield live


@pytest.fixture
async def service(settings: Settings, tencent: LiveSimulator) -> AsyncIterator[Running]:
    rules = {"7": RuleSettings(client="shop")}
    asking = settings.model_copy(update={"faceid_endpoint": tencent.url, "faceid_rule_id": None, "rules": rules})
    async with running(asking, with_worker=False) as started:
        yield started


@asynccontextmanager
async def reconciling(service: Running, at: datetime | None = None) -> AsyncIterator[ReconcileService]:
    async with open_accounts(service.services.settings) as accounts:
        yield reconciliation(service.services, accounts, clock=lambda: at or datetime.now(UTC))


async def rows(service: Running, statement: str) -> Sequence[tuple[object, ...]]:
    async with service.services.database.read() as tx:
        return [tuple(row) for row in await tx.execute(text(statement))]


def billed(tencent: LiveSimulator, count: int, rule_id: str = "7") -> list[str]:
    tokens = [token("passed") for _ in range(count)]
    for biz_token in tokens:
        tencent.simulator.bill(biz_token, rule_id, DAY_BEFORE_YESTERDAY)
    return tokens


async def test_who_was_billed_and_never_reported_is_retrieved(service: Running, tencent: LiveSimulator) -> None:
    tokens = billed(tencent, 5)
    async with service.client(await service.key(*everything(), client="shop")) as api:
        await api.put(f"/v1/verifications/{tokens[0]}", json={"rule_id": "7", "subject_ref": "loan-4711"})
        async with reconciling(service) as reconcile, retrieving(service) as retrieval:
            with structlog.testing.capture_logs() as logs:
                found = [await reconcile.reconcile() for _ in range(2)]
            while await retrieve_all(retrieval):
                pass
        seen = [(await api.get(f"/v1/verifications/{biz_token}")).json() for biz_token in tokens]

    assert found[1] == 0
    assert found[0] >= 4  # the other tests' tokens are on the bill, too
    assert [view["outcome"] for view in seen] == [None, *["passed"] * 4]  # the first is polled when its time has come
    assert seen[0]["subject_ref"] == "loan-4711"
    assert not [biz_token for biz_token in tokens if biz_token in repr(logs)]


async def test_rules_that_nobody_named_are_somebody_elses(service: Running, tencent: LiveSimulator) -> None:
    others = billed(tencent, 3, rule_id="8")

    async with reconciling(service) as reconcile:
        await reconcile.reconcile()

    known = {name for (name,) in await rows(service, "SELECT biz_token FROM verification")}
    assert known.isdisjoint(others)
    assert {rule_id for (rule_id,) in await rows(service, "SELECT rule_id FROM reconciliation")} == {"7"}


@pytest.mark.parametrize(
    ("at", "last"),
    [
        ("2026-11-23T21:59:59Z", "2026-11-22"),  # 05:59:59 of the 24th in China
        ("2026-11-23T22:00:00Z", "2026-11-23"),
    ],
)
async def test_a_day_is_one_of_china_and_its_bill_is_read_from_six_on(service: Running, at: str, last: str) -> None:
    async with reconciling(service, datetime.fromisoformat(at)) as reconcile:
        await reconcile.reconcile()

    days = sorted(str(day) for (day,) in await rows(service, "SELECT day FROM reconciliation"))
    assert (len(days), days[-1]) == (3, last)


async def test_a_bill_that_cannot_be_read_is_read_later_from_where_it_stopped(
    service: Running, tencent: LiveSimulator
) -> None:
    tokens = set(billed(tencent, 3))
    nowhere = service.services.settings.model_copy(update={"faceid_endpoint": "http://127.0.0.1:1"})
    broken = Running(service.app)
    with structlog.testing.capture_logs() as logs:
        async with open_accounts(nowhere) as accounts:
            services = replace(broken.services, settings=nowhere)
            assert await reconciliation(services, accounts).reconcile() == 0
    async with reconciling(service) as reconcile:
        assert await reconcile.reconcile() == 0  # not at once
    async with reconciling(service, datetime.now(UTC) + timedelta(minutes=6)) as reconcile:
        assert await reconcile.reconcile() >= 3

    assert {entry["error_code"] for entry in logs if entry["event"] == "bill_unread"} == {"network.connection"}
    known = {name for (name,) in await rows(service, "SELECT biz_token FROM verification")}
    assert tokens <= known
    assert {due_at for (due_at,) in await rows(service, "SELECT due_at FROM reconciliation")} == {None}


async def test_the_worker_reads_bills_where_a_setting_says_so(settings: Settings, tencent: LiveSimulator) -> None:
    (biz_token,) = billed(tencent, 1, rule_id="9")
    asking = settings.model_copy(
        update={"faceid_endpoint": tencent.url, "faceid_rule_id": "9", "faceid_reconcile": True}
    )
    async with running(asking) as service, service.client(await service.key(*everything())) as api:
        async with asyncio.timeout(20):
            seen = await until_known(api, biz_token)

    assert (seen["rule_id"], seen["outcome"]) == ("9", "passed")


async def until_known(api: httpx.AsyncClient, biz_token: str) -> dict[str, object]:
    while (answer := await api.get(f"/v1/verifications/{biz_token}?wait=20")).status_code == 404:
        pass
    seen: dict[str, object] = answer.json()
    return seen
