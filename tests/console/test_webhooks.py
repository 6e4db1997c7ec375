"""Webhook endpoints in the console: what forms do, what is shown once, and who is refused."""

import asyncio
import re
from dataclasses import replace

import httpx
import pytest

from app.domain.api_key import Scope
from app.domain.deliveries import Attempt, Fault
from app.domain.webhook_endpoint import EndpointState, WebhookEndpoint
from app.services.webhook_endpoints import EndpointFacts
from app.webhooks.client import MAX_HEAD_CHARACTERS
from tests.support.api import retrieve_new
from tests.support.console import audited, visiting, words_of
from tests.support.receiver import answer, receiving
from tests.support.service import Running, actor, everything

PATH = "/admin/webhook-endpoints"
SECRET = re.compile(r"<pre[^>]*>(whsec_[^<]+)</pre>")
MORE = " Delivered 2 Failed attempts 1 Answer time 95% within"
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def place(response: httpx.Response) -> tuple[int, str | None]:
    return response.status_code, response.headers.get("Location")


async def shown(client: httpx.AsyncClient, url: str, text: str) -> httpx.Response:
    """Returns a page as soon as it shows a text."""
    page = await client.get(url)
    for _ in range(400):
        if text in words_of(page):
            break
        await asyncio.sleep(0.05)
        page = await client.get(url)
    return page


async def stored(service: Running) -> WebhookEndpoint:
    """Returns the only endpoint."""
    (endpoint,) = (await service.services.webhook_endpoints.list(actor())).endpoints
    return endpoint


@ON_SQLITE
async def test_endpoint_is_created_changed_rotated_and_deleted_by_its_host(idle_service: Running) -> None:
    service = idle_service
    form = {"url": "http://127.0.0.1:9/a", "event_verification.retrieved": "on", "rule_ids": "1 loan"}
    async with visiting(service, await service.key(Scope.WEBHOOKS_MANAGE, client="shop")) as client:
        created = await client.post(PATH, data=form)
        endpoint = await stored(service)
        url = f"{PATH}/{endpoint.id}"
        listed, later = await client.get(PATH), await client.get(url)
        edit = {"url": endpoint.url, "outcome_passed": "on", "description": "till", "max_per_second": "5"}
        edited = await client.post(f"{url}/change", data=edit)
        changed = await stored(service)
        rotated = await client.post(f"{url}/rotate", data={"keep_for": "7d"})
        wrong = await client.post(f"{url}/delete", data={"host": "shop.test"})
        right = await client.post(f"{url}/delete", data={"host": "127.0.0.1"})
        end = await client.get(PATH)
    rows = await audited(service)

    (first,), (second,) = SECRET.findall(created.text), SECRET.findall(rotated.text)
    assert first != second
    assert re.findall(r'data-go="(\w)" aria-current', created.text) == ["w"]
    assert "whsec_" not in later.text + listed.text
    assert ("127.0.0.1" in listed.text, endpoint.url in listed.text) == (True, False)
    assert (endpoint.client, sorted(endpoint.events), sorted(endpoint.rule_ids)) == (
        "shop",
        ["verification.retrieved"],
        ["1", "loan"],
    )
    assert [sorted(each) for each in (changed.events, changed.outcomes, changed.rule_ids)] == [[], ["passed"], []]
    assert (changed.description, changed.max_per_second) == ("till", 5)
    assert "the earlier one still signs until" in words_of(rotated)
    assert [place(each) for each in (edited, wrong, right)] == [
        (303, f"{url}?done=change"),
        (303, f"{url}?problem=host"),
        (303, f"{PATH}?done=delete"),
    ]
    assert "127.0.0.1" not in words_of(end)
    assert [(action, fields) for action, fields, _, _ in rows] == [
        ("sign_in", ""),
        ("webhook_created", ""),
        ("webhook_changed", "description events max_per_second outcomes rule_ids"),
        ("webhook_rotated", ""),
        ("webhook_deleted", ""),
    ]


@ON_SQLITE
async def test_malformed_forms_are_explained_and_keep_what_was_entered(idle_service: Running) -> None:
    service = idle_service
    good = {"url": "http://127.0.0.1:9/", "description": "kept"}
    wrong = [
        {"url": ""},
        {"rule_ids": "a/b"},
        {"max_per_second": "0"},
        {"max_per_second": "x"},
        {"url": "ftp://127.0.0.1/"},
        {"url": "http://169.254.169.254/"},
    ]
    async with visiting(service, await service.key(Scope.WEBHOOKS_MANAGE)) as client:
        await client.post(PATH, data=good)
        url = f"{PATH}/{(await stored(service)).id}"
        answers = [await client.post(path, data=good | each) for each in wrong for path in (PATH, f"{url}/change")]
        no_span = await client.post(f"{url}/rotate", data={"keep_for": "1y"})

    assert [each.status_code for each in (*answers, no_span)] == [400] * 13
    assert all('value="kept"' in each.text for each in answers)
    assert "Events cannot be sent to this URL." in words_of(answers[-1])
    assert (await stored(service)).url == good["url"]


@ON_SQLITE
async def test_held_events_are_sent_or_dropped_as_the_visitor_chooses(idle_service: Running) -> None:
    service = idle_service
    delivery_id = await service.delivery_id()
    endpoint_id = await service.endpoint_id()
    url = f"{PATH}/{endpoint_id}"
    async with visiting(service, await service.key(Scope.WEBHOOKS_MANAGE)) as client:
        disabled = await client.post(f"{url}/disable")
        page = await client.get(url)
        unanswered = await client.post(f"{url}/enable")
        dropped = await client.post(f"{url}/enable", data={"held": "drop"})
        record = await service.services.deliveries.get(actor(), int(delivery_id.removeprefix("dlv_")))

    assert place(disabled) == (303, f"{url}?done=disable")
    assert "1 event is held. What shall become of it?" in words_of(page)
    assert "Disabled since" in words_of(page)
    assert (unanswered.status_code, "Choose whether they are sent" in words_of(unanswered)) == (409, True)
    assert place(dropped) == (303, f"{url}?done=enable")
    assert (record.delivery.state, (await stored(service)).state) == ("dropped", EndpointState.ENABLED)


@ON_SQLITE
async def test_test_event_shows_the_answer_or_what_to_do(idle_service: Running) -> None:
    service = idle_service
    async with receiving() as receiver, visiting(service, await service.key(Scope.WEBHOOKS_MANAGE)) as client:
        receiver.answer = lambda message: answer(500 if b"erased" in message.body else 200, b"<b>stored</b>")
        await client.post(PATH, data={"url": receiver.url()})
        url = f"{PATH}/{(await stored(service)).id}"
        good = await client.post(f"{url}/test", data={"type": "verification.retrieved"})
        bad = await client.post(f"{url}/test", data={"type": "verification.erased"})
        await client.post(f"{url}/change", data={"url": "http://127.0.0.1:9/"})
        closed = await client.post(f"{url}/test")

    assert "The test event was answered verification.retrieved · HTTP 200" in words_of(good)
    assert "<b>stored" not in good.text
    assert "Look at the answer, and into the log of the receiver." in words_of(bad)
    assert "Check that the receiver is running" in words_of(closed)
    assert [b'"test":true' in message.body for message in receiver.messages] == [True, True]


@ON_SQLITE
async def test_visitor_without_the_scope_or_of_another_client_is_refused(idle_service: Running) -> None:
    service = idle_service
    facts = EndpointFacts(url="http://127.0.0.1:9/")
    endpoint, _ = await service.services.webhook_endpoints.create(actor(), facts, client="bank")
    url = f"{PATH}/{endpoint.id}"
    forms = {
        "change": {"url": "http://127.0.0.1:9/b"},
        "enable": {},
        "disable": {},
        "rotate": {"keep_for": "24h"},
        "test": {},
        "delete": {"host": "127.0.0.1"},
    }
    scopes = [scope for scope in everything() if scope is not Scope.WEBHOOKS_MANAGE]
    answers = {}
    for name, key in (
        ("reader", await service.key(*scopes, client="bank")),
        ("stranger", await service.key(Scope.WEBHOOKS_MANAGE, client="shop")),
    ):
        async with visiting(service, key) as client:
            posts = [await client.post(f"{url}/{action}", data=data) for action, data in forms.items()]
            own = [await client.get(PATH), await client.post(PATH, data={"url": facts.url, "client": "bank"})]
            answers[name] = [each.status_code for each in (await client.get(url), *posts, *own)]

    assert answers == {"reader": [403] * 9, "stranger": [404] * 7 + [200, 403]}
    assert await stored(service) == endpoint


@ON_SQLITE
async def test_delivery_is_explained_sent_again_and_replayed_after_a_dry_run(service: Running) -> None:
    statuses = [503, 200, 200]
    async with receiving() as receiver:
        receiver.answer = lambda _: answer(statuses[len(receiver.messages) - 1], b"<i>later</i>")
        facts = EndpointFacts(url=receiver.url())
        endpoint, _ = await service.services.webhook_endpoints.create(actor(), facts)
        url = f"{PATH}/{endpoint.id}"
        async with service.client(await service.key(*everything())) as api:
            biz_token = await retrieve_new(api)
        async with visiting(service, await service.key(Scope.RESULTS_READ)) as reader:
            unlisted = await reader.get(f"/admin/verifications/{biz_token}")
        async with visiting(service, await service.key(Scope.WEBHOOKS_MANAGE, Scope.RESULTS_READ)) as client:
            listed = await shown(client, f"{url}/deliveries?state=pending", "HTTP 503")
            (path,) = re.findall(r'"(/admin/deliveries/dlv_\d+)"', listed.text)
            failed = await client.get(path)
            failed_line = await client.get(f"/admin/verifications/{biz_token}")
            retried = await client.post(f"{path}/retry")
            delivered = await shown(client, path, "HTTP 200")
            delivered_line = await client.get(f"/admin/verifications/{biz_token}")
            empty = [
                await client.get(f"{url}/deliveries", params=each) for each in ({"state": "failed"}, {"type": "test"})
            ]
            days = {"from": "2020-01-01", "to": "2100-01-01"}
            found = await client.get(f"{url}/deliveries", params=days | {"type": "verification.retrieved"})
            span = {"from": "2020-01-01T00:00", "to": "2100-01-01T00:00"}
            plans = [await client.get(f"{url}/replay", params=span | {"which": each}) for each in ("failed", "all")]
            sent_until_now = len(receiver.messages)
            replayed = await client.post(f"{url}/replay", data=span | {"which": "all"})
            after = await client.get(replayed.headers["Location"])
            await shown(client, path, "3 Body of the event")
            signals = [words_of(await client.get(each)) for each in (url, PATH)]
            wrong = [
                await client.get(f"{url}/replay", params=span | each)
                for each in (
                    {"to": "2019-01-01T00:00", "which": "all"},
                    {"from": "x", "which": "all"},
                    {"which": "some"},
                )
            ]
            unknown = [await client.get(f"/admin/deliveries/{each}") for each in ("dlv_999999", "x")]
    rows = await audited(service)

    assert biz_token in words_of(listed)
    assert "The answer was not 2xx" in words_of(failed)
    assert "Webhook" not in words_of(unlisted)
    assert "Webhook not delivered to 127.0.0.1" in words_of(failed_line)
    assert "Webhook delivered to 127.0.0.1" in words_of(delivered_line)
    assert f'href="{path}"' in delivered_line.text
    assert ("<i>later" in failed.text, "Look at the answer" in words_of(failed)) == (False, True)
    assert place(retried) == (303, f"{path}?done=retry")
    assert "Delivered" in words_of(delivered)
    assert ["No delivery matches" in words_of(each) for each in empty] == [True, True]
    assert biz_token in words_of(found)
    assert ["Nothing to send" in words_of(plans[0]), "Send 1 event again" in words_of(plans[1])] == [True, True]
    assert sent_until_now == 2
    assert "1 event is sent again" in words_of(after)
    assert ["66.7% of 3 attempts" + rest in each for rest, each in zip((MORE, ""), signals, strict=True)] == [True] * 2
    assert len({message.headers["webhook-id"] for message in receiver.messages}) == 1
    assert [each.status_code for each in wrong] == [400] * 3
    assert [each.status_code for each in unknown] == [404] * 2
    assert [action for action, *_ in rows].count("webhook_replayed") == 2


@ON_SQLITE
async def test_deliveries_of_another_client_or_without_the_scope_are_refused(idle_service: Running) -> None:
    service = idle_service
    delivery = f"/admin/deliveries/{await service.delivery_id()}"
    url = f"{PATH}/{await service.endpoint_id()}"
    span = {"from": "2020-01-01T00:00", "to": "2100-01-01T00:00", "which": "all"}
    readers = [scope for scope in everything() if scope is not Scope.WEBHOOKS_MANAGE]
    statuses = []
    for key in (await service.key(*readers), await service.key(Scope.WEBHOOKS_MANAGE, client="shop")):
        async with visiting(service, key) as client:
            pages = [await client.get(each) for each in (delivery, f"{url}/deliveries")]
            plan = await client.get(f"{url}/replay", params=span)
            posts = [await client.post(f"{delivery}/retry"), await client.post(f"{url}/replay", data=span)]
            statuses.append([each.status_code for each in (*pages, plan, *posts)])

    assert statuses == [[403] * 5, [404] * 5]


@ON_SQLITE
async def test_delivery_with_many_long_answers_is_a_small_page(idle_service: Running) -> None:
    service = idle_service
    delivery_id = await service.delivery_id()
    number = int(delivery_id.removeprefix("dlv_"))
    attempt = Attempt(
        delivery_id=number,
        at=service.services.clock(),
        host="shop.test",
        address="127.0.0.1",
        duration_ms=7,
        status=500,
        fault=Fault.HTTP_STATUS,
        detail="The answer was 500.",
        head='"' * MAX_HEAD_CHARACTERS,
    )
    async with service.services.database.write() as tx:
        (delivery,) = await tx.deliveries.lock([number])
        await tx.deliveries.save_all([replace(delivery, attempts=25)])
        await tx.deliveries.add_attempts([attempt] * 25)
    async with visiting(service, await service.key(Scope.WEBHOOKS_MANAGE)) as client:
        page = await client.get(f"/admin/deliveries/{delivery_id}")

    assert words_of(page).count("HTTP 500") == 20
    assert "5 earlier attempts" in words_of(page)
    assert len(page.content) < 60_000
