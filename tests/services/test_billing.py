"""Reconciliation with Tencent's bills finds unreported tokens: once, page by page, and only for our rules."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import structlog
from sqlalchemy import text

from app.config import Settings
from app.factory import open_retrieval
from app.services.billing import BillingService
from app.services.rule_settings import RuleSettings
from simulator.options import SimulatorOptions
from tests.support.api import token
from tests.support.service import Running, changed, everything, running, with_services
from tests.support.simulator import LiveSimulator, live_simulator
from tests.support.tencent import peer, saying
from tests.support.worker import retrieve_all, retrieving, with_clock

# The bill of this day is complete at any hour of today.
DAY_BEFORE_YESTERDAY = datetime.now(UTC) - timedelta(days=2)


@pytest.fixture(scope="module")
def tencent() -> Iterator[LiveSimulator]:
    with live_simulator(SimulatorOptions(bills_per_page=2)) as live:
        yield live


@pytest.fixture
async def service(settings: Settings, tencent: LiveSimulator) -> AsyncIterator[Running]:
    rules = {"7": RuleSettings(client="shop")}
    own = changed(settings, faceid_endpoint=tencent.url, faceid_rule_id=None, rules=rules)
    async with running(own, with_worker=False) as started:
        yield started


@asynccontextmanager
async def reconciling(service: Running, at: datetime | None = None) -> AsyncIterator[BillingService]:
    services = with_clock(service.services, lambda: at or datetime.now(UTC))
    async with open_retrieval(services) as retrieval:
        yield retrieval.billing


async def rows(service: Running, statement: str) -> Sequence[tuple[object, ...]]:
    async with service.services.database.read() as tx:
        return [tuple(row) for row in await tx.connection.execute(text(statement))]


def billed(tencent: LiveSimulator, count: int, rule_id: str = "7") -> list[str]:
    tokens = [token("passed") for _ in range(count)]
    for biz_token in tokens:
        tencent.simulator.bill(biz_token, rule_id, DAY_BEFORE_YESTERDAY)
    return tokens


async def test_billed_token_that_was_never_reported_is_retrieved(service: Running, tencent: LiveSimulator) -> None:
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
    # The bill also lists the tokens of the other tests.
    assert found[0] >= 4
    # The registered token is not due yet, so the bill does not change it.
    assert [view["outcome"] for view in seen] == [None, *["passed"] * 4]
    assert seen[0]["subject_ref"] == "loan-4711"
    assert not [biz_token for biz_token in tokens if biz_token in repr(logs)]


async def test_bills_of_unconfigured_rules_are_ignored(service: Running, tencent: LiveSimulator) -> None:
    others = billed(tencent, 3, rule_id="8")

    async with reconciling(service) as reconcile:
        await reconcile.reconcile()

    known = {name for (name,) in await rows(service, "SELECT biz_token FROM verification")}
    assert known.isdisjoint(others)
    assert {rule_id for (rule_id,) in await rows(service, "SELECT rule_id FROM reconciliation")} == {"7"}


async def test_bill_corrects_an_assumed_rule(settings: Settings, tencent: LiveSimulator) -> None:
    rules = {"7": RuleSettings(client="shop")}
    own = changed(settings, faceid_endpoint=tencent.url, faceid_rule_id="1", rules=rules)
    assumed, stated = billed(tencent, 2)
    async with running(own, with_worker=False) as service, service.client(await service.key(*everything())) as api:
        for biz_token, rule_id in ((assumed, None), (stated, "1")):
            await api.post("/v1/callbacks", json={"BizToken": biz_token, "RuleId": rule_id})
        async with reconciling(service) as reconcile:
            await reconcile.reconcile()
        rules_after = [(await api.get(f"/v1/verifications/{one}")).json()["rule_id"] for one in (assumed, stated)]

    assert rules_after == ["7", "1"]


async def test_bill_corrects_the_verifications_of_all_clients(settings: Settings, tencent: LiveSimulator) -> None:
    rules = {"7": RuleSettings(client="shop")}
    own = changed(settings, faceid_endpoint=tencent.url, faceid_rule_id="1", rules=rules)
    (biz_token,) = billed(tencent, 1)
    async with running(own, with_worker=False) as service:
        for client in ("bank", "other"):
            async with service.client(await service.key(*everything(), client=client)) as api:
                await api.post("/v1/callbacks", json={"BizToken": biz_token})
        async with reconciling(service) as reconcile:
            await reconcile.reconcile()
        async with service.services.database.read() as tx:
            found = {row.client: row.rule_id for row in await tx.verifications.find_all([biz_token])}

    assert found == {"bank": "7", "other": "7"}


@pytest.mark.parametrize(
    ("at", "last"),
    [
        ("2026-11-23T21:59:59Z", "2026-11-22"),  # 05:59:59 in China
        ("2026-11-23T22:00:00Z", "2026-11-23"),
    ],
)
async def test_bill_of_a_day_in_china_is_read_from_six_o_clock_on(service: Running, at: str, last: str) -> None:
    async with reconciling(service, datetime.fromisoformat(at)) as reconcile:
        await reconcile.reconcile()

    days = sorted(str(day) for (day,) in await rows(service, "SELECT day FROM reconciliation"))
    assert (len(days), days[-1]) == (3, last)


async def test_malformed_rows_of_a_bill_are_counted_and_the_others_registered(settings: Settings) -> None:
    rows_of_bill = [
        {"BizToken": "billed-1", "RuleId": "7"},
        {"BizToken": "billed-2", "RuleId": None},
        {"BizToken": "billed-3", "RuleId": "7"},
        {"BizToken": "no token", "RuleId": "7"},
    ]
    page = {"HasNextPage": False, "NextCursor": 0, "WeChatBillDetails": rows_of_bill, "RequestId": "r-1"}
    async with peer(saying(json.dumps({"Response": page}).encode())) as (url, _):
        own = changed(settings, faceid_endpoint=url, faceid_rule_id=None, rules={"7": RuleSettings()})
        async with running(own, with_worker=False) as service, reconciling(service) as reconcile:
            with structlog.testing.capture_logs() as logs:
                assert await reconcile.reconcile() == 2

            known = {name for (name,) in await rows(service, "SELECT biz_token FROM verification")}
            assert known == {"billed-1", "billed-3"}
    read = [entry for entry in logs if entry["event"] == "bill_read"]
    rejected = [entry for entry in logs if entry["event"] == "bill_rows_rejected"]
    assert [(entry["found"], entry["known"]) for entry in read] == [(2, 0), (0, 2), (0, 2)]
    assert rejected == [{"event": "bill_rows_rejected", "log_level": "warning", "rule_id": "7", "count": 2}] * 3


async def test_unreadable_bill_is_read_again_minutes_later(service: Running, tencent: LiveSimulator) -> None:
    tokens = set(billed(tencent, 3))
    nowhere = changed(service.services.settings, faceid_endpoint="http://127.0.0.1:1")
    with structlog.testing.capture_logs() as logs:
        async with open_retrieval(with_services(service.services, settings=nowhere)) as retrieval:
            assert await retrieval.billing.reconcile() == 0
    async with reconciling(service) as reconcile:
        assert await reconcile.reconcile() == 0  # too early
    async with reconciling(service, datetime.now(UTC) + timedelta(minutes=6)) as reconcile:
        assert await reconcile.reconcile() >= 3

    assert {entry["error_code"] for entry in logs if entry["event"] == "bill_unread"} == {"network.connection"}
    known = {name for (name,) in await rows(service, "SELECT biz_token FROM verification")}
    assert tokens <= known
    assert {due_at for (due_at,) in await rows(service, "SELECT due_at FROM reconciliation")} == {None}


async def test_worker_reads_bills_if_faceid_reconcile_is_set(settings: Settings, tencent: LiveSimulator) -> None:
    (biz_token,) = billed(tencent, 1, rule_id="9")
    own = changed(settings, faceid_endpoint=tencent.url, faceid_rule_id="9", faceid_reconcile=True)
    async with running(own) as service, service.client(await service.key(*everything())) as api:
        async with asyncio.timeout(20):
            seen = await wait_until_known(api, biz_token)

    assert (seen["rule_id"], seen["outcome"]) == ("9", "passed")


async def wait_until_known(api: httpx.AsyncClient, biz_token: str) -> dict[str, object]:
    while (answer := await api.get(f"/v1/verifications/{biz_token}?wait=20")).status_code == 404:
        pass
    seen: dict[str, object] = answer.json()
    return seen
