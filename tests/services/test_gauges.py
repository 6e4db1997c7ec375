"""The gauges: the same figures from every process, whose reads are bounded by indexes and limits."""

import re
from dataclasses import replace
from datetime import datetime, timedelta

import httpx
from sqlalchemy import event, text

from app.domain.deliveries import new_delivery
from app.domain.detection import Part
from app.domain.events import Event, EventType, new_public_id
from app.domain.verification import Priority, State
from app.domain.webhook_endpoint import EndpointState
from app.services.webhook_endpoints import EndpointFacts
from tests.support.rows import MINIMAL
from tests.support.service import Running, actor

# An age is compared in whole minutes, so no test depends on its own speed.
AGES = ("oldest_seconds", "deadline_seconds")


async def gauges(api: httpx.AsyncClient) -> dict[str, float]:
    """Returns the values of all gauges by name and labels; those in seconds as whole minutes."""
    found: dict[str, float] = {}
    for line in (await api.get("/metrics")).text.splitlines():
        if line.startswith("faceid_"):
            name, _, value = line.rpartition(" ")
            is_age = name.endswith(AGES) and value != "NaN"
            found[name] = round(float(value) / 60) if is_age else float(value)
    return found


async def add_verifications(service: Running, at: datetime) -> None:
    """Adds two verifications that are due, one that is not, and one whose media are lacking."""
    row = replace(MINIMAL, account="default", received_at=at, deadline_at=at + timedelta(hours=60))
    async with service.services.database.write() as tx:
        await tx.verifications.add_all(
            [
                replace(
                    row, biz_token="a-oldest", received_at=at - timedelta(minutes=90), due_at=at + timedelta(hours=1)
                ),
                replace(row, biz_token="longest-due", client="shop", due_at=at - timedelta(minutes=30)),
                replace(row, biz_token="due", priority=Priority.POLL, due_at=at - timedelta(minutes=10)),
                replace(
                    row,
                    biz_token="first-deadline",
                    state=State.RETRIEVED,
                    fetched_parts=frozenset({Part.TEXT}),
                    due_at=at + timedelta(hours=1),
                    deadline_at=at + timedelta(hours=5),
                ),
            ]
        )


async def add_deliveries(service: Running, at: datetime) -> None:
    """Adds an endpoint of each state, and to the first one, two and three deliveries that were due for 20 minutes."""
    services = service.services
    for number, state in enumerate(EndpointState, 1):
        known, _ = await services.webhook_endpoints.create(actor(), EndpointFacts(url=f"http://127.0.0.1:9/{number}"))
        async with services.database.write() as tx:
            await tx.webhook_endpoints.save(known, replace(known, state=state))
            await tx.events.create_counter()
            new = [Event(public_id=new_public_id(), type=EventType.TEST, client="other", at=at) for _ in range(number)]
            await tx.events.add_all([replace(one, details="{}") for one in new])
            placed = await tx.events.sequence(limit=500)
            due = replace(known, state=EndpointState.ENABLED)
            await tx.deliveries.add_all([new_delivery(due, one, at - timedelta(minutes=20)) for one in placed])


async def test_gauges_show_the_pending_work_and_the_capacity(
    idle_service: Running, idle_api: httpx.AsyncClient
) -> None:
    services = idle_service.services
    empty = await gauges(idle_api)
    await add_verifications(idle_service, services.clock())
    await add_deliveries(idle_service, services.clock())
    await services.workers.report()
    async with services.database.write() as tx:
        await tx.workers.report("second", services.clock() - timedelta(seconds=30))
        await tx.workers.report("killed", services.clock() - timedelta(seconds=90))
        await tx.quota.reserve("default", interval=timedelta(milliseconds=1), slots=30_000)

    filled = await gauges(idle_api)
    await services.workers.leave()
    left = await gauges(idle_api)

    expected = {
        "faceid_pending_retrievals": (0, 3),
        "faceid_pending_oldest_seconds": (0, 90),
        "faceid_due_oldest_seconds": (0, 30),
        'faceid_pending_verifications{less_than_hours="6"}': (0, 1),
        'faceid_pending_verifications{less_than_hours="24"}': (0, 1),
        "faceid_workers_seen": (0, 2),
        'faceid_deliveries_waiting{state="enabled"}': (0, 1),
        'faceid_deliveries_waiting{state="failing"}': (0, 2),
        'faceid_deliveries_waiting{state="disabled"}': (0, 3),
        "faceid_delivery_oldest_seconds": (0, 20),
    }
    assert {name: (empty[name], filled[name]) for name in expected} == expected
    assert (str(empty["faceid_first_deadline_seconds"]), filled["faceid_first_deadline_seconds"]) == ("nan", 5 * 60)
    # 30,000 of 60,000 calls a minute; fewer count if a minute has ended.
    assert empty["faceid_quota_used_ratio"] == 0 < filled["faceid_quota_used_ratio"] <= 0.5
    assert left["faceid_workers_seen"] == 1
    assert filled["faceid_measured_timestamp_seconds"] > 1.7e9
    assert filled['faceid_disk_free_bytes{disk="media"}'] > filled['faceid_disk_reserve_bytes{disk="media"}'] > 0
    assert "faceid_account_quota_used_ratio" not in str(filled)


async def test_reads_of_the_gauges_use_indexes_and_limits(idle_service: Running) -> None:
    database = idle_service.services.database
    statements: list[tuple[str, tuple[object, ...]]] = []

    @event.listens_for(database.engine.sync_engine, "before_cursor_execute")
    def note(_: object, __: object, statement: str, parameters: tuple[object, ...], ___: object, ____: object) -> None:
        statements.append((statement, parameters))

    await idle_service.services.gauges.refresh()
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)

    plans = ""
    counts = [
        sql for sql, _ in statements if "count(*)" in sql and ("FROM verification" in sql or "FROM delivery" in sql)
    ]
    async with database.maintain() as connection:
        if not database.is_embedded:
            await connection.execute(text("SET enable_seqscan = off"))
        how = "EXPLAIN QUERY PLAN" if database.is_embedded else "EXPLAIN"
        for sql, parameters in statements:
            if "FROM verification" in sql or "FROM delivery" in sql:
                plan = await connection.exec_driver_sql(f"{how} {sql}", parameters)
                plans += "".join(f"{row[-1]}\n" for row in plan)
    assert set(re.findall(r"(?:INDEX|using) ix_(verification|delivery)_(\w+)", plans)) <= {
        *(
            ("verification", name)
            for name in ("deadline_at", "turns", "state_outcome_id", "state_outcome_updated_at_id")
        ),
        *(("delivery", name) for name in ("due", "order", "endpoint_id_state_id")),
    }, plans
    assert not re.search(r"SCAN (?:verification|delivery)(?! USING)|Seq Scan on (?:verification|delivery)\b", plans), (
        plans
    )
    # Two times, all that are pending, and the deliveries.
    assert ["LIMIT" in sql for sql in counts] == [True] * 4
