"""The history of the demo: what the console shows at first sight, made by the services on a clock of the past."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from app.cli.demo import demo_settings
from app.cli.demo_history import create_history
from app.cli.demo_plan import plan_days
from app.cli.demo_receiver import DemoReceiver
from app.cli.runtime import operator
from app.cli.server import listen, serving, url_of
from app.domain.audit import Action, AuditFilter
from app.domain.listing import VerificationFilter
from app.domain.verification import Result, State
from app.factory import Services, open_services
from simulator.people import AREA_CODE
from tests.support.clocks import FixedClock

END = datetime(2026, 11, 26, 8, 12, tzinfo=UTC)
GROUPS = {0: "system", 1: "liveness", 2: "comparison"}


def test_month_depends_on_the_seed_and_the_end_only() -> None:
    month = plan_days("1", END, 30)

    assert plan_days("1", END, 30) == month
    assert plan_days("2", END, 30) != month
    assert len({case.biz_token for case in month}) == len(month)
    assert {(END - case.begun_at).days for case in month} == set(range(30))
    failures = {int(case.scenario.removeprefix("failed-")) for case in month if case.scenario.startswith("failed-")}
    assert {GROUPS[code // 1000] for code in failures} == set(GROUPS.values())


async def test_console_has_something_of_everything_at_first_sight(tmp_path: Path) -> None:
    settings = demo_settings(tmp_path, "http://127.0.0.1:1")
    with listen("127.0.0.1", 0) as listener:
        receiver = DemoReceiver(url_of(listener))
        async with serving(receiver, listener):
            cases = await create_history(settings, receiver, end=END, days=2, seed="1")

    async with open_services(settings, clock=FixedClock(END)) as services:
        results = await everything(services)
        assert len(results) == len(cases)
        states = Counter(result.verification.state for result in results)
        assert states.keys() >= {State.PENDING, State.RETRIEVED, State.ERASED}
        assert all(instants(result) <= END for result in results)
        # The media of the last day, and of the client that wants media.
        assert {result.verification.rule_id for result in results if result.media} == {"1"}
        identities = [result.masked.id_card for result in results if result.masked.id_card]
        assert {number[0] for number in identities} == {AREA_CODE[0]}

        overview = await services.overview.get(operator())
        assert overview.condition
        assert [(pause.account, pause.error_code) for pause in overview.condition.pauses] == [
            ("wallet", "UnauthorizedOperation.Arrears")
        ]
        assert [key.name for key in overview.condition.expiring_keys] == ["wallet back end"]
        assert overview.figures.failures
        assert overview.figures.pending == states[State.PENDING]

        records = await services.audit.search(operator(), AuditFilter(), None, limit=200, cursor=None)
        actions = {record.action for record, _ in records.records}
        assert actions >= {
            *(Action.IDENTITY, Action.MEDIA, Action.SEARCH, Action.ERASE, Action.HOLD),
            *(Action.KEY_CREATED, Action.KEY_REVOKED),
        }
        assert "forbidden" in {record.outcome for record, _ in records.records}
        assert (await services.audit.verify({})).trouble is None
    assert {event["data"]["client"] for event in receiver.events} == {"loans"}


async def everything(services: Services) -> Sequence[Result]:
    page = await services.read.list(operator(), VerificationFilter(), limit=200, cursor=None)
    assert page.next_cursor is None
    return page.results


def instants(result: Result) -> datetime:
    """Returns the latest instant of a verification that is not in the future by its nature."""
    known = result.verification
    return max(at for at in (known.registered_at, known.received_at, known.retrieved_at, known.updated_at) if at)
