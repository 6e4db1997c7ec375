"""The events in the console: who sees which, and the end of a stream."""

import asyncio
import re

import pytest
from starlette.types import Message

from app.domain.api_key import Scope
from app.domain.events import Event, EventFilter, EventType, matches
from app.domain.verification import LONG_AGO
from app.event_stream import EventStreamResponse
from app.routers.middleware import RequestMiddleware
from tests.console.conftest import Console
from tests.support.api import retrieve_new
from tests.support.console import visiting, words_of
from tests.support.service import Running, actor, everything

PATH = "/admin/events"


async def test_visitor_sees_the_events_of_its_client_newest_first(console: Console) -> None:
    service = console.service
    async with service.client(await service.key(*everything(), client="watched")) as api:
        earlier, later = await retrieve_new(api), await retrieve_new(api)
    async with visiting(service, await service.key(Scope.RESULTS_READ, client="watched")) as client:
        own = await client.get(PATH)
        async with asyncio.timeout(20):
            while later not in own.text:
                own = await client.get(PATH)
        paused = await client.get(PATH, params={"paused": "yes"})
    async with visiting(service, await service.key(Scope.RESULTS_READ, client="other")) as client:
        foreign = await client.get(PATH)
    places = [own.text.index(f"/{biz_token}") for biz_token in (later, earlier)]

    assert places == sorted(places)
    assert ["http-equiv" in page.text for page in (own, paused)] == [True, False]
    assert ["data-follow" in page.text for page in (own, paused)] == [True, False]
    assert "Waiting for the first event" in words_of(foreign)


async def test_events_are_filtered_by_links_that_keep_the_other_filters(service: Running) -> None:
    keys = {client: await service.key(*everything(), client=client) for client in ("shop", "bank")}
    tokens = {}
    for owner, key in keys.items():
        async with service.client(key) as api:
            tokens[owner] = [await retrieve_new(api), await retrieve_new(api)]
            await api.delete(f"/v1/verifications/{tokens[owner][0]}")
    async with visiting(service, await service.key(Scope.ADMIN)) as client:
        async with asyncio.timeout(20):
            while (await client.get(PATH)).text.count("<td>Erased<") < 2:
                pass
        pages = [
            await client.get(PATH, params=each)
            for each in (
                {"client": "shop"},
                {"client": "shop", "type": "verification.erased"},
                {"biz_token": tokens["bank"][0], "paused": "yes"},
                {"type": "verification.expired"},
            )
        ]
    async with visiting(service, keys["shop"]) as client:
        foreign = await client.get(PATH, params={"client": "bank"})
    shown = [re.findall(r'<td class="token"><a href="/admin/verifications/([^"?]+)', page.text) for page in pages]

    first, second = tokens["shop"]
    assert shown == [[first, second, first], [first], [tokens["bank"][0]] * 2, []]
    assert 'data-follow="/admin/events/stream?type=verification.erased&amp;client=shop"' in pages[1].text
    assert 'hx-get="/admin/events?type=verification.erased&amp;client=shop"' in pages[1].text
    assert 'href="/admin/events?client=shop" aria-current="true">Erased' in pages[1].text
    assert (
        f'href="/admin/events?biz_token={tokens["bank"][0]}&amp;paused=yes&amp;type=verification.erased"'
        in pages[2].text
    )
    assert "No event matches these filters" in words_of(pages[3])
    assert foreign.status_code == 403


def test_filter_of_a_token_selects_its_events() -> None:
    event = Event(public_id="evt_1", type=EventType.ERASED, client="shop", at=LONG_AGO, biz_token="one")
    wanted = [EventFilter(), EventFilter(biz_token="one"), EventFilter(biz_token="two")]

    assert [matches(each, event) for each in wanted] == [True, True, False]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_events_without_the_scope_are_refused(idle_service: Running) -> None:
    scopes = [scope for scope in everything() if scope is not Scope.RESULTS_READ]
    async with visiting(idle_service, await idle_service.key(*scopes)) as client:
        answers = [await client.get(path) for path in (PATH, f"{PATH}/stream")]

    assert [answer.status_code for answer in answers] == [403, 403]


async def test_stream_with_a_limit_ends_so_the_browser_must_show_its_session_again(console: Console) -> None:
    sent: list[Message] = []
    received: list[Message] = [{"type": "http.request"}]

    async def receive() -> Message:
        if not received:
            await asyncio.Event().wait()
        return received.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    streams = console.service.services.streams
    response = EventStreamResponse(streams, actor(), EventFilter(), None, max_seconds=0.05)
    async with asyncio.timeout(20):
        await RequestMiddleware(response)({"type": "http", "method": "GET", "headers": [], "state": {}}, receive, send)

    assert sent[-1] == {"type": "http.response.body", "body": b": bye\n\n", "more_body": False}
