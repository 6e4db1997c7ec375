"""The audit log: the events that belong in it, and the filters of its list."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_network
from itertools import product
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.domain.api_key import Scope, new_key
from tests.support.api import call_back, row_of, url
from tests.support.service import Running, actor, everything

URL = "/v1/audit"
AuditRecord = dict[str, Any]


async def events(admin: httpx.AsyncClient, **filters: str) -> list[AuditRecord]:
    """Returns the events of all pages, two to a page."""
    found, cursor = list[AuditRecord](), None
    while True:
        answer = await admin.get(URL, params=filters | {"limit": "2"} | ({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200
        page = answer.json()
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def test_events_are_filtered_by_time_key_and_action(idle_service: Running) -> None:
    for client in ("one", "two"):
        async with idle_service.client(await idle_service.key(*everything(), client=client)) as api:
            biz_token = await call_back(api)
            for _ in range(2):
                await api.post("/v1/verifications/search", json={"id_card": "000000199001011234"})
                await api.delete(f"/v1/verifications/{biz_token}")
    async with idle_service.client(await idle_service.key(Scope.ADMIN)) as admin:
        all_events = await events(admin)
        times = sorted({event["at"] for event in all_events})
        keys = sorted({event["key_id"] for event in all_events})

        # Three keys were created; two clients searched twice and erased once.
        assert len(all_events) == 9
        choices = [None, times[3]], [None, times[6]], [None, *keys], [None, "search", "erase"]
        for at_from, at_to, key_id, action, outcome in product(*choices, [None, "done"]):
            filters = {"from": at_from, "to": at_to, "key_id": key_id, "action": action, "outcome": outcome}

            found = await events(admin, **{name: value for name, value in filters.items() if value})

            assert found == [
                event
                for event in all_events
                if (at_from is None or datetime.fromisoformat(event["at"]) >= datetime.fromisoformat(at_from))
                and (at_to is None or datetime.fromisoformat(event["at"]) < datetime.fromisoformat(at_to))
                and key_id in {None, event["key_id"]}
                and action in {None, event["action"]}
                and outcome in {None, event["outcome"]}
            ], filters
        assert await events(admin, key_id="nobody") == []


def described(events: Sequence[AuditRecord]) -> list[tuple[Any, ...]]:
    """Returns the events, oldest first, without their times and request ids."""
    names = ("action", "outcome", "client", "biz_token", "subject", "fields", "purpose")
    return [tuple(event[name] for name in names) for event in reversed(events)]


async def test_requested_retrieval_is_audited(idle_service: Running) -> None:
    key = await idle_service.key(*everything(), client="shop")
    async with idle_service.client(key) as api, idle_service.client(await idle_service.key(Scope.ADMIN)) as admin:
        biz_token = await call_back(api)
        answers = [await api.post(url(each, "retrieve")) for each in (biz_token, "unknown")]
        found = await events(admin, action="retrieve")
        of_the_token = await events(admin, biz_token=biz_token)

    assert [answer.status_code for answer in answers] == [202, 404]
    assert described(found) == [("retrieve", "done", "shop", biz_token, None, [], None)]
    assert of_the_token == found


async def test_refused_disclosures_are_audited(idle_service: Running) -> None:
    async with (
        idle_service.client(await idle_service.key(*everything(), client="owner")) as owner,
        idle_service.client(await idle_service.key(*everything(), client="stranger")) as stranger,
        idle_service.client(await idle_service.key(Scope.RESULTS_READ, client="reader")) as reader,
        idle_service.client(await idle_service.key(Scope.ADMIN)) as admin,
    ):
        known, erased = await call_back(owner), await call_back(owner)
        await owner.delete(url(erased))
        paths = [(), ("identity",), ("media", "best_frame")]
        calls = [(stranger, known), (reader, known), (owner, "unknown"), (owner, erased)]
        answers = [[(await api.get(url(each, *path))).status_code for path in paths] for api, each in calls]
        no_item = await owner.head(url(known, "media", "best_frame"))
        found = [*await events(admin, action="media"), *await events(admin, action="identity")]
        refused = await events(admin, action="identity", outcome="forbidden")

    assert (answers, no_item.status_code) == ([[404] * 3, [404, 403, 403], [404] * 3, [410] * 3], 404)
    assert described(found) == [
        ("identity", "not_found", "stranger", None, None, [], "test"),
        ("identity", "forbidden", "reader", None, None, [], None),
        ("identity", "not_found", "owner", None, None, [], "test"),
        ("identity", "erased", "owner", None, None, [], "test"),
        ("media", "not_found", "stranger", None, None, ["best_frame"], "test"),
        ("media", "forbidden", "reader", None, None, [], None),
        ("media", "not_found", "owner", None, None, ["best_frame"], "test"),
        ("media", "erased", "owner", None, None, ["best_frame"], "test"),
        ("media", "not_found", "owner", None, None, ["best_frame"], "test"),
    ]
    assert described(refused) == [("identity", "forbidden", "reader", None, None, [], None)]


async def wait_for(admin: httpx.AsyncClient, count: int, **filters: str) -> list[AuditRecord]:
    """Returns the events once there are so many: refused authentications are recorded after the answer."""
    for _ in range(1000):
        if len(found := await events(admin, **filters)) >= count:
            return found
        await asyncio.sleep(0.01)
    pytest.fail("The events were not recorded.")


async def test_refused_authentication_is_audited_once_per_address_and_reason(idle_service: Running) -> None:
    keys, valid_for = idle_service.services.api_keys, timedelta(days=1)
    elsewhere, confined_text = await keys.create(
        actor(), "till", everything(), client="shop", valid_for=valid_for, networks=[ip_network("10.0.0.0/8")]
    )
    revoked, revoked_text = await keys.create(actor(), "old", everything(), client="shop", valid_for=valid_for)
    await keys.revoke(actor(), revoked.id)
    expired, expired_text = await keys.create(actor(), "late", [], client="shop", valid_for=-valid_for)
    edited, edited_text = await keys.create(actor(), "edited", [], client="shop", valid_for=valid_for)
    async with idle_service.services.database.write() as tx:
        await tx.connection.execute(text("UPDATE api_key SET scopes = 'admin' WHERE id = :id"), {"id": edited.id})
    texts = [None, "000000199001011234", new_key()[2], confined_text, revoked_text, expired_text, edited_text]
    for _ in range(3):
        for sent in texts:
            async with idle_service.client(sent) as api:
                assert (await api.get(url("any"))).status_code == 401
    async with idle_service.client(None) as api:
        signed = {"webhook-signature": "v1,AAAA", "webhook-id": "1", "webhook-timestamp": "1"}
        assert (await api.post("/v1/callbacks", json={}, headers=signed)).status_code == 401

    async with idle_service.client(await idle_service.key(Scope.ADMIN)) as admin:
        await wait_for(admin, 8, action="authentication")
        found = await events(admin, action="authentication")

    assert sorted((event["outcome"], event["key_id"], event["subject"]) for event in found) == [
        ("altered", edited.id, "127.0.0.1"),
        ("expired", expired.id, "127.0.0.1"),
        ("malformed", "", "127.0.0.1"),
        ("missing", "", "127.0.0.1"),
        ("network", elsewhere.id, "127.0.0.1"),
        ("revoked", revoked.id, "127.0.0.1"),
        ("signature", "", "127.0.0.1"),
        ("unknown", "", "127.0.0.1"),
    ]
    assert "000000199001011234" not in str(found)


async def test_altered_row_does_not_break_the_list(idle_service: Running) -> None:
    async with idle_service.client(await idle_service.key(Scope.ADMIN)) as admin:
        (await admin.post(url(await call_back(admin), "retrieve"))).raise_for_status()
        is_embedded = idle_service.services.database.is_embedded
        async with idle_service.services.database.write() as tx:
            await tx.connection.execute(text("UPDATE audit SET action = 'no action'"))
            if is_embedded:
                await tx.connection.execute(text("UPDATE verification SET biz_token = x'ff'"))
        found = await events(admin)

    assert {event["action"] for event in found} == {"no action"}
    assert any(event["biz_token"] for event in found) is not is_embedded


async def test_erasures_after_the_retention_are_audited_with_their_ids(idle_service: Running) -> None:
    services = idle_service.services
    async with idle_service.client(await idle_service.key(*everything(), Scope.ADMIN)) as api:
        tokens = [await call_back(api) for _ in range(103)]
        rows = [await row_of(services, biz_token) for biz_token in tokens]
        async with services.database.write() as tx:
            await tx.connection.execute(text("UPDATE verification SET erase_at = '2026-01-01 00:00:00.000000'"))
            await tx.connection.execute(
                text("UPDATE verification SET retain_until = '2026-01-01 00:00:00.000000' WHERE id > :id"),
                {"id": rows[0].id},
            )

        assert await services.erase.erase_overdue(actor()) == 103
        found = await events(api, action="retention")

    ids = [list(map(int, event["outcome"].removeprefix("erased ").split())) for event in found]
    assert max(map(len, ids)) <= 100
    assert sorted((event["fields"], number) for event, few in zip(found, ids, strict=True) for number in few) == [
        (["media"], rows[0].id),
        *((["text", "media"], row.id) for row in rows[1:]),
    ]
