"""The signals of a webhook endpoint: what they count, and that the index has all of it."""

import re
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import text

from app.domain.deliveries import Attempt, Fault, Signals
from app.services.deliveries import SIGNALS_OF
from app.storage.delivery_log import SIGNALS
from tests.support.plans import plan_of
from tests.support.service import Running, actor


async def test_signals_are_those_of_the_newest_attempts_of_a_day(idle_service: Running) -> None:
    services, now = idle_service.services, idle_service.services.clock()
    number = int((await idle_service.delivery_id()).removeprefix("dlv_"))
    endpoint_id = await idle_service.endpoint_id()
    last = Attempt(
        delivery_id=number,
        endpoint_id=endpoint_id,
        at=now - timedelta(seconds=1),
        host="shop.test",
        address=None,
        duration_ms=100,
        status=200,
        fault=None,
        detail=None,
        head=None,
    )

    def attempt(ms: int, *, fault: Fault | None = None, age: timedelta = timedelta(minutes=1)) -> Attempt:
        return replace(last, duration_ms=ms, fault=fault, at=now - age)

    before = await services.deliveries.signals(actor(), [endpoint_id], at_most=1000)
    async with services.database.write() as tx:
        await tx.deliveries.add_attempts([attempt(ms) for ms in range(1, 97)])
        await tx.deliveries.add_attempts([attempt(1000, fault=Fault.TIMEOUT)] * 3 + [last])
        await tx.deliveries.add_attempts([attempt(5000, age=SIGNALS_OF + timedelta(minutes=1))])
    found = await services.deliveries.signals(actor(), [endpoint_id], at_most=1000)
    newest = await services.deliveries.signals(actor(), [endpoint_id], at_most=1)

    assert before == {endpoint_id: Signals(0, 0, None)}
    assert found == {endpoint_id: Signals(100, 3, 95)}
    assert newest == {endpoint_id: Signals(1, 0, 100)}
    assert found[endpoint_id].successes == 97


async def test_signals_read_their_index_only(idle_service: Running) -> None:
    services = idle_service.services
    number = int((await idle_service.delivery_id()).removeprefix("dlv_"))
    parameters = {"of_endpoint": await idle_service.endpoint_id(), "since": services.clock(), "at_most": 10}
    rows = [{"delivery_id": number, "endpoint_id": f"we_{place % 50}", "at": services.clock()} for place in range(2000)]
    async with services.database.write() as tx:
        insert = "INSERT INTO delivery_attempt (delivery_id, endpoint_id, at, host, duration_ms) VALUES "
        await tx.connection.execute(text(f"{insert} (:delivery_id, :endpoint_id, :at, '', 1)"), rows)
        await tx.connection.execute(text("ANALYZE"))
    plan = await plan_of(services.database, SIGNALS, parameters)

    assert re.findall(r"Seq Scan|SCAN delivery|Bitmap", plan) == [], plan
    assert re.search(r"(COVERING INDEX|Index Only Scan Backward using) ix_delivery_attempt_signals", plan), plan
