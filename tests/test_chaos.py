"""The short version of `make chaos`, on both databases at once, because it mostly waits for leases."""

import asyncio

import httpx
import pytest
from sqlalchemy import text

from app.config import Settings
from app.sealing.aead import TamperedDataError
from tests.chaos.inbox import Inbox
from tests.chaos.plan import Scenario, Token, draw_plan
from tests.chaos.reconcile import Acknowledged, Findings, Folder, reconcile
from tests.chaos.run import Options, Report, run
from tests.support.api import call_back, row_of
from tests.support.service import Running
from tests.support.simulator import LiveSimulator
from tests.support.worker import retrieve_all, retrieving

SEED = 5
KILLS = 8


@pytest.fixture(scope="module")
async def reports() -> tuple[Report, Report]:
    return await asyncio.gather(run(_options("sqlite", "folder")), run(_options("postgres", "bucket")))


def _options(database: str, media: str) -> Options:
    return Options(database=database, media=media, seed=SEED, kills=KILLS, call_seconds=1)


async def test_acknowledged_tokens_survive_the_kills(reports: tuple[Report, Report]) -> None:
    for report in reports:
        assert report.zeros == dict.fromkeys(report.zeros, 0), report.findings
        assert len(report.scene.acknowledged) == report.tokens
        assert 0 < report.scene.kills.total() <= KILLS


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_plan_is_the_same_for_the_same_seed_only(database: str) -> None:
    plan = draw_plan(seed=SEED, kills=50, database=database, pace=0.5)

    assert plan == draw_plan(seed=SEED, kills=50, database=database, pace=0.5)
    assert plan != draw_plan(seed=SEED + 1, kills=50, database=database, pace=0.5)


async def test_altered_text_and_unreported_events_are_findings(
    idle_service: Running, idle_api: httpx.AsyncClient, settings: Settings, faceid: LiveSimulator
) -> None:
    biz_token = await call_back(idle_api, "failed-2016")
    async with retrieving(idle_service) as retrieval:
        await retrieve_all(retrieval)
    row = await row_of(idle_service.services, biz_token)
    assert row.received_at is not None
    acknowledged = {biz_token: Acknowledged(frozenset([row.received_at]), is_registered=False)}
    token = Token(biz_token, Scenario("failed-2016", err_code=2016), None)
    ledger = [entry for entry in faceid.simulator.ledger.entries if entry.biz_token == biz_token]

    async def found() -> Findings:
        store = Folder(settings.media.media_folder)
        return await reconcile([token], acknowledged, settings, store, ledger, Inbox("whsec_"))

    before = await found()
    for position in ("position + 100", "103 - position"):
        async with idle_service.services.database.write() as tx:
            await tx.connection.execute(text(f"UPDATE liveness_attempt SET position = {position}"))

    finding = f"{biz_token}: {TamperedDataError()}"
    assert finding not in before.wrong
    assert (await found()).wrong == [finding]
    # Its event has no position yet, and no message reported it.
    assert [text.partition(": ")[2].split(":")[0] for text in before.unreported] == [
        "other messages than events",
        "it has no position",
    ]
