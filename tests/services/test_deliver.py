"""Deliveries: every event arrives signed, in order for each verification, and at least once."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from standardwebhooks import Webhook

from app.domain.api_key import Scope
from app.domain.deliveries import Fault
from app.domain.webhook_endpoint import WebhookEndpoint
from app.sealing.keyring import Ring
from app.services.deliver import LEASE, DeliverService
from tests.support.api import retrieve_new, url
from tests.support.clocks import FixedClock
from tests.support.receiver import Message, Receiver, answer, receiving
from tests.support.service import Running, everything

PATH = "/v1/webhook-endpoints"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as server:
        yield server


async def create(api: httpx.AsyncClient, to: str, **values: object) -> dict[str, Any]:
    created: dict[str, Any] = (await api.post(PATH, json={"url": to, **values})).raise_for_status().json()
    return created


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("The condition did not become true.")


async def deliveries(api: httpx.AsyncClient, endpoint: dict[str, Any], **filters: str) -> list[dict[str, Any]]:
    page = await api.get(f"{PATH}/{endpoint['id']}/deliveries", params=filters)
    items: list[dict[str, Any]] = page.raise_for_status().json()["items"]
    return items


async def settled(
    api: httpx.AsyncClient, endpoint: dict[str, Any], count: int, state: str = "delivered"
) -> list[dict[str, Any]]:
    """Returns the deliveries of the endpoint when so many have the state."""
    for _ in range(500):
        items = await deliveries(api, endpoint, state=state)
        if len(items) == count:
            return items
        await asyncio.sleep(0.02)
    pytest.fail(f"{count} deliveries should be {state}: {await deliveries(api, endpoint)}")


def event_of(message: Message) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(message.body)
    return event


def stopped_clock() -> FixedClock:
    """Returns a clock that stands ahead of the service's, so no test depends on its own speed."""
    return FixedClock(datetime.now(UTC) + timedelta(minutes=1))


def by_hand(service: Running, clock: FixedClock) -> DeliverService:
    """Returns a sender with a clock that is ahead, for a service without a worker."""
    known = service.services.deliver
    return DeliverService(database=known.database, secrets=known.secrets, client=known.client, clock=clock)


async def send_due(service: Running, sender: DeliverService) -> int:
    """Sends what is due once; returns how many deliveries."""
    await service.services.outbox.sequence()
    claims = await sender.take(64)
    await asyncio.gather(*map(sender.deliver, claims))
    return len(claims)


async def erase_new(api: httpx.AsyncClient, count: int = 1) -> list[str]:
    """Registers tokens and erases them, which is one event each; returns the tokens."""
    tokens = [f"erased-{number}-{datetime.now(UTC).timestamp()}" for number in range(count)]
    for biz_token in tokens:
        (await api.put(url(biz_token))).raise_for_status()
        (await api.delete(url(biz_token))).raise_for_status()
    return tokens


async def test_event_of_a_result_arrives_signed_and_is_listed(api: httpx.AsyncClient, receiver: Receiver) -> None:
    receiver.answer = lambda _: answer(200, b"thanks")
    created = await create(api, receiver.url("/hook?key=1"))
    biz_token = await retrieve_new(api)
    (listed,) = await settled(api, created, 1)
    alone = (await api.get(f"/v1/deliveries/{listed['id']}")).json()

    (message,) = receiver.messages
    event = Webhook(created["secret"]).verify(message.body, dict(message.headers))
    assert (event["type"], event["data"]["biz_token"], event["data"]["revision"]) == (
        "verification.retrieved",
        biz_token,
        1,
    )
    assert message.headers["webhook-id"] == event["id"]
    (attempt,) = listed["attempts"]
    assert listed == alone
    assert listed | {"attempts": [], "id": "", "created_at": "", "ended_at": ""} == {
        "id": "",
        "endpoint_id": created["id"],
        "event_id": event["id"],
        "type": "verification.retrieved",
        "biz_token": biz_token,
        "revision": 1,
        "state": "delivered",
        "due_at": None,
        "created_at": "",
        "ended_at": "",
        "attempt_count": 1,
        "attempts": [],
    }
    assert attempt | {"at": "", "duration_ms": 0} == {
        "at": "",
        "host": "127.0.0.1",
        "address": "127.0.0.1",
        "duration_ms": 0,
        "status": 200,
        "error": None,
        "detail": None,
        "response_head": "thanks",
    }


async def test_only_wanted_events_of_the_own_client_are_sent(idle_service: Running, receiver: Receiver) -> None:
    sender = by_hand(idle_service, stopped_clock())
    async with idle_service.client(await idle_service.key(*everything())) as api:
        wanted = await create(api, receiver.url("/wanted"), events=["verification.erased"])
        await create(api, receiver.url("/unwanted"), events=["verification.retrieved"])
        await create(api, receiver.url("/unwanted"), outcomes=["passed"])
        (erased,) = await erase_new(api)
    async with idle_service.client(await idle_service.key(*everything(), client="other")) as api:
        await erase_new(api)
    sent = await send_due(idle_service, sender)

    assert [(message.target, event_of(message)["data"]["biz_token"]) for message in receiver.messages] == [
        ("/wanted", erased)
    ]
    assert (sent, wanted["state"]) == (1, "enabled")


async def test_each_retry_has_the_same_id_and_bytes(
    idle_service: Running, idle_api: httpx.AsyncClient, receiver: Receiver
) -> None:
    clock, codes = stopped_clock(), iter([500, 404, 204])
    receiver.answer = lambda _: answer(next(codes))
    created = await create(idle_api, receiver.url())
    sender, begun = by_hand(idle_service, clock), clock.now
    await erase_new(idle_api)
    sent = []
    for ahead in (0, 4, 6, 200, 400):
        clock.now = begun + timedelta(seconds=ahead)
        sent.append(await send_due(idle_service, sender))

    (listed,) = await deliveries(idle_api, created)
    assert sent == [1, 0, 1, 0, 1]
    assert len({message.body for message in receiver.messages}) == 1
    assert len({message.headers["webhook-id"] for message in receiver.messages}) == 1
    assert len({message.headers["webhook-timestamp"] for message in receiver.messages}) == 3
    assert [(each["status"], each["error"]) for each in listed["attempts"]] == [
        (500, "http_status"),
        (404, "http_status"),
        (204, None),
    ]
    assert (listed["state"], listed["attempt_count"]) == ("delivered", 3)


async def test_events_of_a_verification_arrive_in_order(
    idle_service: Running, idle_api: httpx.AsyncClient, receiver: Receiver
) -> None:
    clock, refused = stopped_clock(), [0]

    def refuse_first(_: Message) -> bytes:
        refused[0] += 1
        return answer(500 if refused[0] == 1 else 204)

    receiver.answer = refuse_first
    created = await create(idle_api, receiver.url())
    sender = by_hand(idle_service, clock)
    async with idle_service.services.database.write() as tx:
        await tx.connection.execute(text("DELETE FROM event"))
    (biz_token,) = await erase_new(idle_api)
    await send_due(idle_service, sender)
    # A second event of the same verification, while the first one waits for its next attempt.
    async with idle_service.services.database.write() as tx:
        (known,) = await tx.verifications.find_all([biz_token])
        await tx.connection.execute(
            text(
                "INSERT INTO event (public_id, type, client, at, verification_id, biz_token, rule_id, state, outcome,"
                " provisional, revision) SELECT 'evt_second', type, client, at, verification_id, biz_token, rule_id,"
                " state, outcome, provisional, 2 FROM event"
            )
        )
    blocked = await send_due(idle_service, sender)
    (other,) = await erase_new(idle_api)
    unblocked = await send_due(idle_service, sender)
    for _ in range(2):
        clock.now += timedelta(seconds=6)
        await send_due(idle_service, sender)

    events = [event_of(message)["data"] for message in receiver.messages]
    seen = [(data["biz_token"], data["revision"]) for data in events]
    assert (blocked, unblocked, known.state) == (0, 1, "erased")
    assert seen == [(biz_token, 1), (other, 1), (biz_token, 1), (biz_token, 2)]
    assert [item["state"] for item in await deliveries(idle_api, created)] == ["delivered"] * 3


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


async def test_held_events_can_be_dropped_and_replayed(
    idle_service: Running, idle_api: httpx.AsyncClient, receiver: Receiver
) -> None:
    created = await create(idle_api, receiver.url())
    path, sender = f"{PATH}/{created['id']}", by_hand(idle_service, stopped_clock())
    await idle_api.patch(path, json={"state": "disabled"})
    await erase_new(idle_api, 3)
    await send_due(idle_service, sender)
    await idle_api.patch(path, json={"state": "enabled", "held": "drop"})
    dropped = await deliveries(idle_api, created, state="dropped", type="verification.erased")
    past = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}
    filtered = [await deliveries(idle_api, created, **past), await deliveries(idle_api, created, type="test")]
    span = {"from": "2026-01-01T00:00:00Z", "to": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    counted = [
        (await idle_api.post(f"{path}/replay", json={**span, "which": which, "dry_run": True})).json()["count"]
        for which in ("failed", "missing", "all")
    ]
    idle = await send_due(idle_service, sender)
    replay = (await idle_api.post(f"{path}/replay", json={**span, "which": "failed"})).json()
    while await send_due(idle_service, sender):
        pass

    assert (len(dropped), filtered, counted, idle) == (3, [[], []], [3, 0, 3], 0)
    assert (replay["count"], replay["has_more"]) == (3, False)
    assert [item["state"] for item in await deliveries(idle_api, created)] == ["delivered"] * 3
    assert len({message.headers["webhook-id"] for message in receiver.messages}) == 3


async def test_replay_of_missing_events_follows_fresh_ones(
    idle_service: Running, idle_api: httpx.AsyncClient, receiver: Receiver
) -> None:
    old = await erase_new(idle_api, 2)
    await idle_service.services.outbox.sequence()
    created = await create(idle_api, receiver.url(), max_per_second=1)
    sender, path = by_hand(idle_service, stopped_clock()), f"{PATH}/{created['id']}/replay"
    span = {"from": "2026-01-01T00:00:00Z", "to": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    other_type = await idle_api.post(path, json={**span, "which": "missing", "events": ["verification.failed"]})
    replay = await idle_api.post(path, json={**span, "which": "missing"})
    wrong = await idle_api.post(path, json={"from": span["to"], "to": span["from"], "which": "all"})
    fresh = await erase_new(idle_api, 1)
    await idle_service.services.outbox.sequence()
    claims = await sender.take(64)

    assert (other_type.json()["count"], replay.json()["count"], wrong.status_code) == (0, 2, 400)
    # One per second, so only the slots of this second and the next one are reserved.
    assert [claim.event.biz_token for claim in claims] == [*fresh, old[0]]
    assert round(claims[1].slot - claims[0].slot, 3) == 1


async def test_delivery_is_sent_again_on_request(
    idle_service: Running, idle_api: httpx.AsyncClient, receiver: Receiver
) -> None:
    created = await create(idle_api, receiver.url())
    sender = by_hand(idle_service, stopped_clock())
    await erase_new(idle_api)
    await send_due(idle_service, sender)
    (listed,) = await deliveries(idle_api, created)
    again = await idle_api.post(f"/v1/deliveries/{listed['id']}/retry")
    await sender.take(1)
    busy = await idle_api.post(f"/v1/deliveries/{listed['id']}/retry")
    async with idle_service.client(await idle_service.key(*everything(), client="other")) as stranger:
        foreign = [
            await stranger.get(f"/v1/deliveries/{listed['id']}"),
            await stranger.post(f"/v1/deliveries/{listed['id']}/retry"),
            await stranger.get(f"{PATH}/{created['id']}/deliveries"),
            await idle_api.get("/v1/deliveries/dlv_999999"),
        ]

    assert (again.status_code, again.json()["state"], again.json()["attempt_count"]) == (202, "pending", 1)
    assert (busy.status_code, [each.status_code for each in foreign]) == (409, [404] * 4)


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


async def test_erasure_removes_answers_and_retention_those_of_a_week_ago(
    idle_service: Running, idle_api: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.answer = lambda _: answer(200, b"a name")
    clock = stopped_clock()
    created = await create(idle_api, receiver.url())
    sender = by_hand(idle_service, clock)
    await erase_new(idle_api)
    await send_due(idle_service, sender)
    heads = [(await deliveries(idle_api, created))[0]["attempts"][0]["response_head"]]
    clock.now += timedelta(days=6)
    await sender.remove_old_answers()
    heads.append((await deliveries(idle_api, created))[0]["attempts"][0]["response_head"])
    clock.now += timedelta(days=2)
    await sender.remove_old_answers()
    heads.append((await deliveries(idle_api, created))[0]["attempts"][0]["response_head"])

    assert heads == ["a name", "a name", None]


async def test_deleted_endpoint_takes_its_deliveries_along(
    idle_service: Running, idle_api: httpx.AsyncClient, receiver: Receiver
) -> None:
    created = await create(idle_api, receiver.url(), max_per_second=5)
    await erase_new(idle_api, 3)
    await send_due(idle_service, by_hand(idle_service, stopped_clock()))
    deleted = await idle_api.delete(f"{PATH}/{created['id']}")

    async with idle_service.services.database.read() as tx:
        left = [
            (await tx.connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()
            for table in ("webhook_endpoint", "delivery", "delivery_attempt", "quota")
        ]
    assert (deleted.status_code, left) == (204, [0, 0, 0, 0])


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


def test_url_of_an_endpoint_is_not_printed() -> None:
    now = datetime.now(UTC)
    endpoint = WebhookEndpoint(
        id="we_1", client="shop", url="https://a.test/token", sealed_secret=b"", created_at=now, updated_at=now
    )

    assert "token" not in repr(endpoint)


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
