"""The short version of `make chaos`, on both databases at once, because most of its time is waiting for leases."""

import asyncio

import pytest

from tests.chaos.plan import draw_plan
from tests.chaos.run import Options, Report, run

SEED = 5
KILLS = 8


@pytest.fixture(scope="module")
async def reports() -> tuple[Report, Report]:
    return await asyncio.gather(run(_options("sqlite")), run(_options("postgres")))


def _options(database: str) -> Options:
    return Options(database=database, seed=SEED, kills=KILLS, call_seconds=1)


async def test_what_was_acknowledged_outlives_kill_9_of_everything(reports: tuple[Report, Report]) -> None:
    for report in reports:
        assert report.zeros == dict.fromkeys(report.zeros, 0), report.findings
        assert len(report.scene.acknowledged) == report.tokens
        assert 0 < report.scene.kills.total() <= KILLS


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_the_same_seed_draws_the_same_plan_and_another_one_another(database: str) -> None:
    plan = draw_plan(seed=SEED, kills=50, database=database, pace=0.5)

    assert plan == draw_plan(seed=SEED, kills=50, database=database, pace=0.5)
    assert plan != draw_plan(seed=SEED + 1, kills=50, database=database, pace=0.5)
