"""Disclosures: what a visitor sees unmasked, for how long, and what the audit says about it."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Collection
from datetime import timedelta

import httpx
import pytest

from app.config import Settings
from app.domain.api_key import Scope
from app.domain.grant import LIFETIME, Wanted
from app.domain.listing import VerificationFilter
from app.errors import ServiceError
from app.services.export import new_table
from app.tabular import Format
from simulator.people import person_of
from tests.console.conftest import Console
from tests.support.api import get, retrieve_new
from tests.support.clocks import ShiftedClock
from tests.support.console import audited, visiting, words_of
from tests.support.service import Running, actor, everything, running

PURPOSE = "客户投诉 4711"
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
MEDIA = "id_card_front id_card_back best_frame liveness_video"


def path(biz_token: str, *parts: str) -> str:
    return "/".join(("/admin/verifications", biz_token, *parts))


async def reveal(client: httpx.AsyncClient, biz_token: str, *names: str, purpose: str = PURPOSE) -> httpx.Response:
    """Sends the form, and returns the answer to it."""
    return await client.post(path(biz_token, "reveal"), data={"purpose": purpose} | dict.fromkeys(names, "on"))


def sources(page: httpx.Response) -> list[str]:
    """Returns the addresses of the pictures and videos of a page."""
    return re.findall(r'<(?:img|video)[^>]* src="([^"]+)"', page.text)


@pytest.fixture
async def scene(settings: Settings) -> AsyncIterator[tuple[Running, ShiftedClock, str, str]]:
    """Yields a service, its clock, the key of a visitor with all scopes but admin, and a token."""
    clock = ShiftedClock()
    async with running(settings, clock=clock) as service:
        key = await service.key(*everything())
        async with service.client(key) as api:
            yield service, clock, key, await retrieve_new(api)


async def test_disclosure_is_recorded_once_and_ends_after_ten_minutes(
    scene: tuple[Running, ShiftedClock, str, str],
) -> None:
    service, clock, key, biz_token = scene
    person = person_of(biz_token)
    async with visiting(service, key) as client:
        masked = await client.get(path(biz_token))
        answer = await reveal(client, biz_token, "identity", "pictures", "recordings")
        shown = await client.get(answer.headers["Location"])
        again = await client.get(answer.headers["Location"])
        places = sources(shown)
        whole = [await client.get(place) for place in places]
        parts = [await client.get(places[-1], headers={"Range": f"bytes={start}-{start + 9}"}) for start in (0, 50)]
        clock.ahead += LIFETIME + timedelta(seconds=1)
        late = await client.get(answer.headers["Location"])
        late_media = await client.get(places[0])
    async with service.client(key) as api:
        view = await get(api, biz_token)
    rows = await audited(service)

    assert [person.id_card in page.text for page in (masked, shown, again, late)] == [False, True, True, False]
    assert [person.name in page.text for page in (masked, shown, late)] == [False, True, False]
    assert [len(each.content) for each in whole] == [item["size_bytes"] for item in view["media"]]
    assert [each.headers["Content-Type"] for each in whole] == [item["content_type"] for item in view["media"]]
    assert {(each.headers["Cache-Control"], each.headers["Content-Disposition"]) for each in whole} == {
        ("no-store", "inline")
    }
    assert [(part.status_code, part.content) for part in parts] == [
        (206, whole[-1].content[start : start + 10]) for start in (0, 50)
    ]
    assert late_media.status_code == 404
    seconds, _, target = shown.headers["Refresh"].partition("; url=")
    assert (0 < int(seconds) <= LIFETIME.total_seconds(), target) == (True, path(biz_token))
    assert [(action, purpose, outcome) for action, _, purpose, outcome in rows] == [
        ("sign_in", None, "done"),
        ("identity", PURPOSE, "done"),
        ("media", PURPOSE, "done"),
    ]
    assert rows[-1][1] == MEDIA


@ON_SQLITE
async def test_newer_result_ends_a_disclosure(scene: tuple[Running, ShiftedClock, str, str]) -> None:
    service, clock, key, biz_token = scene
    async with visiting(service, key) as client, service.client(key) as api:
        answer = await reveal(client, biz_token, "identity", "pictures")
        shown = await client.get(answer.headers["Location"])
        clock.ahead += timedelta(seconds=30)
        before = (await get(api, biz_token))["retrieved_at"]
        await client.post(path(biz_token, "retrieve"))
        for _ in range(400):
            if (await get(api, biz_token))["retrieved_at"] != before:
                break
            await asyncio.sleep(0.05)
        later = await client.get(answer.headers["Location"])
        media = await client.get(sources(shown)[0])

    assert "Unmasked until" in words_of(shown)
    assert "Unmasked until" not in words_of(later)
    assert media.status_code == 404


async def test_disclosure_belongs_to_its_session(console: Console) -> None:
    person = person_of(console.passed)
    async with visiting(console.service, console.key) as first, visiting(console.service, console.key) as second:
        answer = await reveal(first, console.passed, "identity", "pictures")
        own = await first.get(answer.headers["Location"])
        foreign = await second.get(answer.headers["Location"])
        media = await second.get(sources(own)[0])

    assert [person.id_card in page.text for page in (own, foreign)] == [True, False]
    assert media.status_code == 404


async def test_disclosure_covers_what_was_chosen_only(console: Console) -> None:
    async with visiting(console.service, console.key) as client:
        answer = await reveal(client, console.passed, "pictures")
        page = await client.get(answer.headers["Location"])
        grant = sources(page)[0].rpartition("/")[0]
        video = await client.get(f"{grant}/liveness_video")
        forged = await client.get(f"{grant[:-2]}/best_frame")
        unknown = await client.get(f"{grant}/nothing")
        outside = await client.get(f"{grant}/best_frame", headers={"Range": "bytes=99999999-"})

    assert [place.rpartition("/")[2] for place in sources(page)] == ["id_card_front", "id_card_back", "best_frame"]
    assert person_of(console.passed).id_card not in page.text
    assert [each.status_code for each in (video, forged, unknown, outside)] == [404, 404, 404, 416]


@pytest.mark.parametrize(("names", "purpose"), [(["identity"], ""), ([], PURPOSE), (["identity"], "two\nlines")])
async def test_disclosure_needs_a_purpose_and_a_choice(console: Console, names: list[str], purpose: str) -> None:
    async with visiting(console.service, console.key) as client:
        answer = await reveal(client, console.passed, *names, purpose=purpose)
        page = await client.get(answer.headers["Location"])

    assert answer.headers["Location"] == f"{path(console.passed)}?problem=purpose#identity"
    assert "State the purpose, and choose what to show." in words_of(page)
    assert person_of(console.passed).id_card not in page.text


@ON_SQLITE
@pytest.mark.parametrize(
    ("scopes", "names", "action"),
    [
        ([Scope.RESULTS_READ, Scope.MEDIA_READ], ["identity"], "identity"),
        ([Scope.RESULTS_READ, Scope.RESULTS_REVEAL], ["pictures"], "media"),
        ([Scope.RESULTS_READ, Scope.RESULTS_REVEAL], ["identity", "recordings"], "media"),
    ],
    ids=str,
)
async def test_visitor_without_the_scope_is_refused_by_the_service(
    service: Running, scopes: Collection[Scope], names: list[str], action: str
) -> None:
    async with service.client(await service.key(*everything())) as api:
        biz_token = await retrieve_new(api)
    async with visiting(service, await service.key(*scopes)) as client:
        page = await client.get(path(biz_token))
        answer = await reveal(client, biz_token, *names)
    rows = await audited(service)

    assert answer.status_code == 403
    assert not any(f'name="{name}"' in page.text for name in names if action in {name, "media"} and name != "identity")
    assert [row for row in rows if row[0] not in {"sign_in", "media"}] == (
        [("identity", "", PURPOSE, "forbidden")] if action == "identity" else []
    )
    assert [row for row in rows if row[0] == "media"] == ([("media", "", PURPOSE, "forbidden")] * (action == "media"))


async def code_of(work: Awaitable[object]) -> str | None:
    """Returns the code of the error of a use case; None if it has none."""
    try:
        await work
    except ServiceError as error:
        return error.code
    return None


@pytest.mark.parametrize("scope", [Scope.RESULTS_READ, Scope.CALLBACKS_WRITE, Scope.RESULTS_ERASE])
async def test_every_use_case_checks_its_scope(console: Console, scope: Scope) -> None:
    services = console.service.services
    key = await services.api_keys.authenticate(await console.service.key(scope))
    session_id = await services.sessions.open(actor(key), key_id=key.id)
    signed_in = await services.sessions.find(session_id, address=None, request_id="r")
    visitor, token = actor(key, purpose=PURPOSE), console.passed
    table = new_table(Format.CSV, is_revealed=False)
    calls: dict[Scope, list[Awaitable[object]]] = {
        Scope.RESULTS_READ: [
            services.read.get(visitor, token),
            services.history.get(visitor, token),
            services.overview.get(visitor),
            anext(services.export.write(visitor, VerificationFilter(), table, is_revealed=False)),
        ],
        Scope.CALLBACKS_WRITE: [services.intake.retrieve_again(visitor, token)],
        Scope.RESULTS_ERASE: [services.erase.erase(visitor, "unknown")],
        Scope.RESULTS_REVEAL: [
            services.read.reveal(visitor, token),
            services.disclosures.disclose(visitor, signed_in, token, [Wanted.IDENTITY], client=None),
        ],
        Scope.MEDIA_READ: [services.disclosures.disclose(visitor, signed_in, token, [Wanted.PICTURES], client=None)],
        Scope.ADMIN: [
            services.erase.hold(visitor, token, is_held=True),
            services.api_keys.list(visitor),
            services.api_keys.revoke(visitor, key.id),
            services.audit.chain_end(visitor),
            services.health.report(visitor),
        ],
    }
    codes = [(needed, await code_of(work)) for needed, works in calls.items() for work in works]

    assert [needed for needed, code in codes if code == "forbidden"] == [
        needed for needed, _ in codes if needed is not scope
    ]
