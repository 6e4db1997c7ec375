"""Deliveries: every event arrives signed, in order for each verification, and at least once."""

from datetime import UTC, datetime, timedelta

import httpx
from sqlalchemy import text
from standardwebhooks import Webhook

from app.domain.webhook_endpoint import WebhookEndpoint
from tests.support.api import retrieve_new
from tests.support.deliveries import (
    PATH,
    by_hand,
    create,
    deliveries,
    erase_new,
    event_of,
    send_due,
    settled,
    stopped_clock,
)
from tests.support.receiver import Message, Receiver, answer
from tests.support.service import Running, everything


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


def test_url_of_an_endpoint_is_not_printed() -> None:
    now = datetime.now(UTC)
    endpoint = WebhookEndpoint(
        id="we_1", client="shop", url="https://a.test/token", sealed_secret=b"", created_at=now, updated_at=now
    )

    assert "token" not in repr(endpoint)
