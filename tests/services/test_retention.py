"""An unusual amount of overdue data is not erased before an operator says so: a wrong clock may be the reason."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from app.config import Settings
from app.domain.verification import State, Verification
from app.errors import ConflictError
from app.factory import Services
from tests.support.command import run
from tests.support.rows import MINIMAL
from tests.support.service import Running, actor, environment_of

HOUR = timedelta(hours=1)


async def add_rows(services: Services, count: int, overdue: timedelta) -> None:
    """Adds verifications whose text is overdue by a span; a negative one is due later."""
    at = services.clock() - overdue
    rows = [_row(f"n{overdue.total_seconds():.0f}-{number}", at) for number in range(count)]
    async with services.database.write() as tx:
        await tx.verifications.add_all(rows)


def _row(biz_token: str, at: datetime) -> Verification:
    return replace(
        MINIMAL,
        biz_token=biz_token,
        state=State.RETRIEVED,
        retain_until=at,
        retain_media_until=at,
        erase_at=at,
    )


@pytest.mark.parametrize(
    ("late", "recent", "later", "erased"),
    [
        pytest.param(20, 0, 0, 20, id="few"),
        pytest.param(21, 0, 0, 0, id="all of more than a few"),
        pytest.param(21, 0, 188, 0, id="more than a tenth"),
        pytest.param(21, 0, 190, 21, id="a tenth"),
        pytest.param(0, 50, 0, 50, id="many that have just become due"),
    ],
)
async def test_sweep_stops_at_an_unusual_amount_of_overdue_data(
    idle_service: Running, late: int, recent: int, later: int, erased: int
) -> None:
    services = idle_service.services
    await add_rows(services, late, 2 * HOUR)
    await add_rows(services, recent, HOUR / 2)
    await add_rows(services, later, -HOUR)

    with structlog.testing.capture_logs() as logs:
        assert await services.erase.erase_expired() == erased

    assert [log["event"] for log in logs] == (["swept"] if erased else ["erasure_stopped"])
    warnings = (await services.health.measure()).warnings
    assert ["waits since" in warning for warning in warnings] == ([] if erased else [True])


async def test_operator_continues_a_stopped_erasure(idle_service: Running, settings: Settings, tmp_path: Path) -> None:
    services, environment = idle_service.services, environment_of(settings)
    await add_rows(services, 30, 2 * HOUR)
    assert await services.erase.erase_expired() == 0

    status = run("retention", "status", "--json", folder=tmp_path, **environment)
    refused = run("retention", "run", folder=tmp_path, stdin="n\n", **environment)
    done = run("retention", "run", "--yes", folder=tmp_path, **environment)

    counts = json.loads(status.out)
    assert (status.code, counts | {"at": None}) == (0, {"at": None, "due": 30, "late": 30, "all": 30, "unusual": True})
    assert abs(datetime.fromisoformat(counts["at"]) - services.clock()) < HOUR
    assert (refused.code, done.code) == (130, 0)
    assert done.out.splitlines()[0].startswith("The service's clock shows 20")
    assert done.out.splitlines()[1:] == [
        "30 of 30 verifications have expired text or media; 30 of them for more than an hour.",
        "30 erased.",
    ]
    assert await services.erase.erase_expired() == 0
    assert (await services.health.measure()).warnings == []


async def test_operator_cannot_erase_by_a_clock_in_doubt(idle_service: Running) -> None:
    services = idle_service.services
    await add_rows(services, 3, HOUR / 2)
    async with services.database.write() as tx:
        await tx.installation.save(doubted_since=services.clock())

    with pytest.raises(ConflictError, match="clock is in doubt"):
        await services.erase.erase_overdue(actor())

    assert (await services.erase.find_overdue()).due == 3


@dataclass
class JumpingClock:
    """A clock that jumps far ahead after it was read once."""

    reads: int = 0

    def __call__(self) -> datetime:
        self.reads += 1
        return datetime.now(UTC) + (timedelta(days=200) if self.reads > 1 else timedelta())


async def test_clock_that_jumps_during_the_erasure_erases_nothing_more(idle_service: Running) -> None:
    services = idle_service.services
    await add_rows(services, 3, HOUR / 2)
    await add_rows(services, 3, -HOUR)
    erase = replace(services.erase, clocks=replace(services.clocks, clock=JumpingClock()))

    assert await erase.erase_expired() == 3
