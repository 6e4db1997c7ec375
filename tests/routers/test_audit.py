"""Filters of the audit log: the list has exactly the events that match every filter."""

from datetime import datetime
from itertools import product
from typing import Any

import httpx

from app.domain.api_key import Scope
from tests.support.api import call_back
from tests.support.service import Running, everything

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
        for at_from, at_to, key_id, action in product(*choices):
            filters = {"from": at_from, "to": at_to, "key_id": key_id, "action": action}

            found = await events(admin, **{name: value for name, value in filters.items() if value})

            assert found == [
                event
                for event in all_events
                if (at_from is None or datetime.fromisoformat(event["at"]) >= datetime.fromisoformat(at_from))
                and (at_to is None or datetime.fromisoformat(event["at"]) < datetime.fromisoformat(at_to))
                and key_id in {None, event["key_id"]}
                and action in {None, event["action"]}
            ], filters
        assert await events(admin, key_id="nobody") == []
