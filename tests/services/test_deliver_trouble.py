"""Trouble with deliveries: endpoints that fail, hang or are gone, dead workers, and rows that were changed."""

import asyncio
from datetime import timedelta

import httpx
from sqlalchemy import text

from app.domain.api_key import Scope
from app.domain.deliveries import Fault
from app.sealing.keyring import Ring
from app.services.deliver import LEASE
from tests.support.deliveries import PATH, by_hand, create, deliveries, erase_new, event_of, send_due, stopped_clock
from tests.support.receiver import Message, Receiver, answer
from tests.support.service import Running, everything


async def test_endpoint_in_trouble_is_probed_and_reported_to_the_others(
    idle_service: Running, idle_api: httpx.AsyncClient, receiver: Receiver
) -> None:
    clock, is_down = stopped_clock(), [True]

    def respond(message: Message) -> bytes:
        return answer(503 if message.target == "/down" and is_down[0] else 204)

    receiver.answer = respond
    down, other = await create(idle_api, receiver.url("/down")), await create(idle_api, receiver.url("/other"))
    sender, begun = by_hand(idle_service, clock), clock.now
    await erase_new(idle_api, 8)
    sent, views = [], []
    # Pauses of 5 s, 5 min and 10 min, each with up to a tenth of jitter.
    for ahead in (0, 1, 6, 60, 340, 350, 1010):
        clock.now = begun + timedelta(seconds=ahead)
        is_down[0] = ahead < 1000
        while await send_due(idle_service, sender):
            pass
        sent.append(sum(message.target == "/down" for message in receiver.messages))
        views.append((await idle_api.get(f"{PATH}/{down['id']}")).json())
    reported = [event_of(message) for message in receiver.messages if message.target == "/other"][-1]

    # Four at once, then one probe per pause; after the first success all others.
    assert sent == [4, 4, 5, 5, 6, 6, 14]
    assert [view["state"] for view in views] == ["enabled"] * 4 + ["failing"] * 2 + ["enabled"]
    assert [view["pending_count"] for view in views] == [8] * 6 + [0]
    assert views[0]["last_error"] == "http_status:503"
    assert reported["type"] == "webhook_endpoint.failing"
    assert reported["data"] | {"failing_since": ""} == {
        "id": down["id"],
        "host": "127.0.0.1",
        "client": "default",
        "state": "failing",
        "disabled_reason": None,
        "failing_since": "",
        "last_error": "http_status:503",
    }
    assert [item["state"] for item in await deliveries(idle_api, other)] == ["delivered"] * 9


async def test_gone_endpoint_holds_its_events_until_it_is_enabled(
    idle_service: Running, idle_api: httpx.AsyncClient, receiver: Receiver
) -> None:
    is_gone = [True]
    receiver.answer = lambda _: answer(410 if is_gone[0] else 204)
    created = await create(idle_api, receiver.url())
    path, sender = f"{PATH}/{created['id']}", by_hand(idle_service, stopped_clock())
    await erase_new(idle_api)
    await send_due(idle_service, sender)
    await erase_new(idle_api, 2)
    idle = await send_due(idle_service, sender)
    view, held = (await idle_api.get(path)).json(), await deliveries(idle_api, created, state="held")
    is_gone[0] = False
    undecided = await idle_api.patch(path, json={"state": "enabled"})
    enabled = await idle_api.patch(path, json={"state": "enabled", "held": "send"})
    while await send_due(idle_service, sender):
        pass

    assert (view["state"], view["disabled_reason"], view["pending_count"], idle) == ("disabled", "gone", 3, 0)
    assert [(item["state"], item["due_at"]) for item in held] == [("held", None)] * 3
    assert (undecided.status_code, undecided.json()["code"]) == (409, "held_events")
    assert enabled.json()["state"] == "enabled"
    assert [item["state"] for item in await deliveries(idle_api, created)] == ["delivered"] * 3


async def test_claim_of_a_dead_worker_is_sent_again_and_its_late_result_is_ignored(
    idle_service: Running, idle_api: httpx.AsyncClient, receiver: Receiver
) -> None:
    clock = stopped_clock()
    created = await create(idle_api, receiver.url())
    dead, alive = by_hand(idle_service, stopped_clock()), by_hand(idle_service, clock)
    await erase_new(idle_api)
    await idle_service.services.outbox.sequence()
    (claim,) = await dead.take(1)
    early = await alive.take(1)
    clock.now += LEASE + timedelta(seconds=1)
    assert await send_due(idle_service, alive) == 1
    receiver.answer = lambda _: answer(500)
    await dead.deliver(claim)

    (listed,) = await deliveries(idle_api, created)
    assert (early, len(receiver.messages)) == ([], 2)
    assert (listed["state"], listed["attempt_count"]) == ("delivered", 1)


async def test_released_claims_are_sent_at_once(
    idle_service: Running, idle_api: httpx.AsyncClient, receiver: Receiver
) -> None:
    await create(idle_api, receiver.url())
    sender = by_hand(idle_service, stopped_clock())
    await erase_new(idle_api)
    await idle_service.services.outbox.sequence()
    await sender.hand_back(await sender.take(1))

    assert await send_due(idle_service, sender) == 1


async def test_changed_url_in_the_database_is_a_fault_and_sends_nothing(
    idle_service: Running, idle_api: httpx.AsyncClient, receiver: Receiver
) -> None:
    created = await create(idle_api, "http://127.0.0.1:9/")
    await erase_new(idle_api)
    async with idle_service.services.database.write() as tx:
        await tx.connection.execute(text("UPDATE webhook_endpoint SET url = :url"), {"url": receiver.url()})
    await send_due(idle_service, by_hand(idle_service, stopped_clock()))

    (listed,) = await deliveries(idle_api, created)
    assert ([each["error"] for each in listed["attempts"]], receiver.connections) == ([Fault.ALTERED], 0)


async def test_hanging_endpoint_holds_four_places_and_others_go_on(
    idle_service: Running, idle_api: httpx.AsyncClient, receiver: Receiver
) -> None:
    await create(idle_api, receiver.url("/hangs"))
    await create(idle_api, receiver.url("/works"))
    await erase_new(idle_api, 10)
    await idle_service.services.outbox.sequence()
    sender = by_hand(idle_service, stopped_clock())
    counts: list[dict[str, int]] = []
    while claims := await sender.take(64):
        counts.append(
            {path: sum(claim.endpoint.url.endswith(path) for claim in claims) for path in ("/hangs", "/works")}
        )
        await asyncio.gather(*(sender.deliver(claim) for claim in claims if claim.endpoint.url.endswith("/works")))

    assert counts == [{"/hangs": 4, "/works": 4}, {"/hangs": 0, "/works": 4}, {"/hangs": 0, "/works": 2}]


async def test_trouble_is_shown_by_metrics_and_readiness(
    idle_service: Running, idle_api: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.answer = lambda _: answer(500)
    await create(idle_api, receiver.url("/secret-path"))
    await erase_new(idle_api, 3)
    await send_due(idle_service, by_hand(idle_service, stopped_clock()))
    async with idle_service.client(await idle_service.key(Scope.ADMIN)) as admin:
        ready = (await admin.get("/readyz")).json()
        metrics = (await admin.get("/metrics")).text

    assert ready["warnings"] == ["1 webhook endpoint fails: see `webhooks list`."]
    assert 'faceid_webhook_endpoints{state="failing"} 1.0' in metrics
    assert 'faceid_deliveries_total{result="http_status"}' in metrics
    assert "secret-path" not in metrics


def bad_time(service: Running) -> str:
    return "'zzz'" if service.services.database.is_embedded else "'4713-01-01 00:00:00+00 BC'"


async def alter(service: Running, statement: str, **values: object) -> None:
    async with service.services.database.write() as tx:
        await tx.connection.execute(text(statement), values)


async def test_malformed_endpoint_holds_its_events_and_stops_no_other(
    idle_service: Running, receiver: Receiver
) -> None:
    sender, services = by_hand(idle_service, stopped_clock()), idle_service.services
    impossible = [(name, "'zzz'") for name in ("events", "outcomes", "state", "disabled_reason")]
    impossible += [(name, bad_time(idle_service)) for name in ("created_at", "updated_at")]
    if services.database.is_embedded:
        impossible += [(name, "'zzz'") for name in ("failures", "concurrency", "paused_until", "sealed_secret")]
        impossible += [(name, "x'ff'") for name in ("client", "url", "description", "last_fault", "rule_ids")]
    async with idle_service.client(await idle_service.key(*everything(), Scope.ADMIN)) as api:
        intact = await create(api, receiver.url("/intact"))
        ids = [(await create(api, receiver.url("/malformed")))["id"] for _ in impossible]
        for endpoint_id, (column, value) in zip(ids, impossible, strict=True):
            await alter(idle_service, f"UPDATE webhook_endpoint SET {column} = {value} WHERE id = :id", id=endpoint_id)
        await erase_new(api)
        sent = await send_due(idle_service, sender) + await send_due(idle_service, sender)
        listed = {item["id"]: item for item in (await api.get(PATH)).raise_for_status().json()["items"]}
        async for _ in services.key_rotation.rotate(Ring.IDENTITY):
            pass
        await services.health.check()
        repaired = ids[impossible.index(("state", "'zzz'"))]
        enabled = await api.patch(f"{PATH}/{repaired}", json={"state": "enabled", "held": "send"})
        deleted = [(await api.delete(f"{PATH}/{each}")).status_code for each in ids if each != repaired]
        await send_due(idle_service, sender)

    assert [message.target for message in receiver.messages] == ["/intact", "/malformed"]
    assert (sent, listed.pop(intact["id"])["state"]) == (1, "enabled")
    assert {(item["state"], item["last_error"]) for item in listed.values()} == {("disabled", "altered")}
    assert listed.keys() == set(ids)
    assert (enabled.json()["state"], set(deleted)) == ("enabled", {204})


async def test_malformed_delivery_attempt_or_event_stops_no_other(idle_service: Running, receiver: Receiver) -> None:
    sender, is_embedded = by_hand(idle_service, stopped_clock()), idle_service.services.database.is_embedded
    of_deliveries = [("state", "'zzz'"), ("priority", "99"), ("created_at", bad_time(idle_service))]
    of_events = [("type", "'zzz'"), ("state", "'zzz'"), ("outcome", "'zzz'"), ("details", "'['")]
    of_attempts = [("fault", "'zzz'"), ("at", bad_time(idle_service))]
    if is_embedded:
        of_deliveries += [(name, "'zzz'") for name in ("claim", "step", "attempts", "position", "due_at", "ended_at")]
        of_events += [("at", "'zzz'"), ("err_code", "'zzz'"), ("rule_id", "x'ff'")]
        of_attempts += [("status", "'zzz'"), ("duration_ms", "'zzz'"), ("host", "x'ff'")]
    async with idle_service.client(await idle_service.key(*everything())) as api:
        endpoint = await create(api, receiver.url())
        (*_, intact) = await erase_new(api, len(of_events) + 1)
        for number, (column, value) in enumerate(of_events, 1):
            await alter(idle_service, f"UPDATE event SET {column} = {value} WHERE id = :id", id=number)
        while await send_due(idle_service, sender):
            pass
        for number, (column, value) in enumerate(of_attempts, 1):
            await alter(idle_service, f"UPDATE delivery_attempt SET {column} = {value} WHERE id = :id", id=number)
        after_events = await deliveries(api, endpoint)
        first = len(after_events) + 1
        (*_, last) = await erase_new(api, len(of_deliveries) + 1)
        await idle_service.services.outbox.sequence()
        for number, (column, value) in enumerate(of_deliveries, first):
            await alter(idle_service, f"UPDATE delivery SET {column} = {value} WHERE id = :id", id=number)
        while await send_due(idle_service, sender):
            pass
        after_deliveries = await deliveries(api, endpoint, limit="200")
        events = (await api.get("/v1/events", params={"limit": 200})).raise_for_status().json()["items"]

    received = {event_of(message)["data"]["biz_token"] for message in receiver.messages}
    assert {intact, last} <= received
    assert len(after_events) == len(of_events) + 1
    assert {"pending", "delivered"} >= {each["state"] for each in after_deliveries}
    assert len(events) == len(of_events) + len(of_deliveries) + 2
