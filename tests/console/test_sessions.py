"""Sign-in, sessions and forms: who gets in, how long, and which requests are refused."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network

import httpx
import pytest
from sqlalchemy import select, text, update

from app.config import Settings
from app.console.visits import COOKIE
from app.domain.api_key import Scope
from app.domain.session import IDLE, LIFETIME
from app.errors import ForbiddenError, NotFoundError
from app.services.clock import now
from app.storage.tables import console_session
from tests.console.conftest import Console
from tests.support.clocks import ShiftedClock
from tests.support.console import BASE, SAME_ORIGIN, audited, browser, visiting, words_of
from tests.support.service import Running, actor, everything, running

REFUSED = "This key is unknown, expired, revoked, or not valid from your network."
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
TO_SIGN_IN = (303, "/admin/login")


def place(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.headers.get("Location")


async def test_session_opens_pages_and_ends_when_it_is_closed(idle_service: Running) -> None:
    key = await idle_service.key(Scope.RESULTS_READ)
    async with browser(idle_service) as client:
        before = await client.get("/admin")
        answer = await client.post("/admin/login", data={"key": f" {key} ", "next": "/admin/verifications?q=x"})
        stolen = client.cookies[COOKIE]
        page = await client.get("/admin")
        end = await client.post("/admin/logout")
        after = await client.get("/admin")
        replayed = await client.get("/admin", headers={"Cookie": f"{COOKIE}={stolen}"})
    rows = await audited(idle_service)

    assert place(before) == TO_SIGN_IN
    assert place(answer) == (303, "/admin/verifications?q=x")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"{COOKIE}={stolen}; HttpOnly; Max-Age=43200; Path=/; SameSite=lax; Secure")
    assert page.status_code == 200
    assert (place(end), end.headers["Clear-Site-Data"]) == (TO_SIGN_IN, '"cache", "storage"')
    assert [place(after), place(replayed)] == [TO_SIGN_IN, TO_SIGN_IN]
    assert rows == [("sign_in", "", None, "done"), ("sign_out", "", None, "done")]


@ON_SQLITE
async def test_refused_keys_have_one_answer_and_the_audit_the_reason(idle_service: Running) -> None:
    service = idle_service
    key = await service.key(Scope.RESULTS_READ)
    revoked = await service.key(Scope.RESULTS_READ)
    await service.services.api_keys.revoke(actor(), revoked.split("_")[1])
    expired = await service.key(Scope.RESULTS_READ, valid_for=-timedelta(days=1))
    wrong = [key[:-1] + ("0" if key[-1] != "0" else "1"), "", revoked, expired]
    async with browser(service) as client:
        answers = [await client.post("/admin/login", data={"key": text}) for text in wrong]
    rows = await audited(service)

    assert [(answer.status_code, REFUSED in words_of(answer)) for answer in answers] == [(401, True)] * 4
    assert not any(text in answer.text for answer in answers for text in wrong if text)
    assert [outcome for action, _, _, outcome in rows if action == "authentication"] == [
        "malformed",
        "revoked",
        "expired",
    ]


@ON_SQLITE
async def test_network_with_failed_attempts_must_wait(idle_service: Running) -> None:
    key = await idle_service.key(Scope.RESULTS_READ)
    async with browser(idle_service) as client:
        statuses = [(await client.post("/admin/login", data={"key": "x"})).status_code for _ in range(6)]
        good = await client.post("/admin/login", data={"key": key})

    assert statuses == [401] * 5 + [429]
    assert good.status_code == 429


@ON_SQLITE
async def test_session_ends_after_idle_time_and_after_its_lifetime(clocked: tuple[Running, ShiftedClock]) -> None:
    service, clock = clocked
    key = await service.key(Scope.RESULTS_READ)
    async with visiting(service, key) as used, visiting(service, key) as idle:
        found = []
        for _ in range(25):
            clock.ahead += IDLE - timedelta(minutes=1)
            found.append((await used.get("/admin")).status_code)
        ends = place(await idle.get("/admin"))

    assert (timedelta(hours=12), timedelta(minutes=30)) == (LIFETIME, IDLE)
    assert found == [200] * 24 + [303]
    assert ends == TO_SIGN_IN


@ON_SQLITE
async def test_session_of_a_revoked_key_ends_within_seconds(clocked: tuple[Running, ShiftedClock]) -> None:
    service, _ = clocked
    key = await service.key(Scope.RESULTS_READ)
    async with visiting(service, key) as client:
        await service.services.api_keys.revoke(actor(), key.split("_")[1])
        answer = await client.get("/admin")
    rows = await audited(service)

    assert place(answer) == TO_SIGN_IN
    assert rows[-1] == ("authentication", "", None, "revoked")


@ON_SQLITE
async def test_session_has_the_networks_of_its_key(idle_service: Running) -> None:
    _, key = await idle_service.services.api_keys.create(
        actor(),
        "office",
        [Scope.RESULTS_READ],
        client="default",
        valid_for=timedelta(days=1),
        networks=[ip_network("10.0.0.0/8")],
    )

    async def page(address: str, cookies: dict[str, str] | None = None) -> httpx.Response:
        transport = httpx.ASGITransport(idle_service.app, client=(address, 1234))
        async with httpx.AsyncClient(
            transport=transport, base_url=BASE, headers=SAME_ORIGIN, cookies=cookies
        ) as client:
            return await (client.get("/admin") if cookies else client.post("/admin/login", data={"key": key}))

    signed_in = await page("10.1.2.3")
    cookies = {COOKIE: signed_in.cookies[COOKIE]}

    assert signed_in.status_code == 303
    assert (await page("192.0.2.1")).status_code == 401
    assert (await page("10.9.9.9", cookies)).status_code == 200
    assert place(await page("192.0.2.1", cookies)) == TO_SIGN_IN


@pytest.mark.parametrize(
    "change",
    [
        {"key_id": None, "scopes": [Scope.ADMIN]},
        {"caller_id": "somebody else"},
        {"expires_at": now() + timedelta(days=300)},
        {"sealed_hash": b"\x00\x01" * 40},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_session_that_was_changed_in_the_database_ends(console: Console, change: dict[str, object]) -> None:
    async with visiting(console.service, console.key) as client:
        async with console.service.services.database.write() as tx:
            await tx.connection.execute(update(console_session).values(change))
        answer = await client.get("/admin")

    assert place(answer) == TO_SIGN_IN


async def test_operator_lists_sessions_and_ends_those_of_one_holder(idle_service: Running) -> None:
    service = idle_service
    keys = [await service.key(Scope.RESULTS_READ), await service.key(Scope.ADMIN)]
    sessions = service.services.sessions
    async with (
        visiting(service, keys[0]) as one,
        visiting(service, keys[0]) as two,
        visiting(service, keys[1]) as other,
    ):
        listed = [session.caller_id for session in await sessions.list(actor())]
        count = await sessions.end_all(actor(), listed[-1])
        found = [(await client.get("/admin")).status_code for client in (one, two, other)]
        left = [session.caller_id for session in await sessions.list(actor())]
        with pytest.raises(NotFoundError):
            await sessions.end_all(actor(), listed[-1])
        reader = await sessions.find(other.cookies[COOKIE], address=None, request_id="r")
        for refused in (sessions.list, lambda caller: sessions.end_all(caller, listed[0])):
            with pytest.raises(ForbiddenError):
                await refused(actor(replace(reader.caller, scopes=frozenset({Scope.RESULTS_READ}))))
    rows = await audited(service)

    ids = [key.split("_")[1] for key in keys]
    assert (listed, left) == ([ids[1], ids[0], ids[0]], [ids[1]])
    assert (count, found) == (2, [303, 303, 200])
    assert rows == [*[("sign_in", "", None, "done")] * 3, ("sign_out", "", None, "done")]


async def test_expired_sessions_are_removed_at_the_next_sign_in(idle_service: Running) -> None:
    key = await idle_service.key(Scope.RESULTS_READ)
    database = idle_service.services.database
    async with visiting(idle_service, key) as client:
        session_id = client.cookies[COOKIE]
    signed_in = await idle_service.services.sessions.find(session_id, address=None, request_id="r")
    async with database.write() as tx:
        values = {"expires_at": now() - timedelta(seconds=1)}
        await tx.connection.execute(update(console_session).values(values))
    async with visiting(idle_service, key):
        pass
    async with database.read() as tx:
        old = await tx.sessions.find(signed_in.session.id_hash)

    assert old is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.test"}, 303),
        ({"Sec-Fetch-Site": "cross-site", "Origin": BASE}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": BASE}, 303),
        ({"Origin": "https://evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 403),
    ],
    ids=str,
)
async def test_form_from_another_site_is_refused(console: Console, headers: dict[str, str], status: int) -> None:
    async with visiting(console.service, console.key) as client:
        cookie = f"{COOKIE}={client.cookies[COOKIE]}"
    async with browser(console.service, headers | {"Cookie": cookie, "Accept-Language": "en"}) as client:
        answer = await client.post("/admin/logout")

    assert answer.status_code == status
    assert ("The form was sent from another site" in answer.text) == (status == 403)


@pytest.mark.parametrize(
    ("wanted", "place_after"),
    [
        ("/admin/audit?action=search", "/admin/audit?action=search"),
        ("https://evil.test/admin", "/admin"),
        ("//evil.test/admin", "/admin"),
        ("/administer", "/admin"),
        ("/admin/..//evil", "/admin/..//evil"),
        ("/admin/\\evil.test", "/admin"),
        ("/admin/logout", "/admin"),
    ],
)
async def test_sign_in_leads_to_pages_of_the_console_only(console: Console, wanted: str, place_after: str) -> None:
    async with browser(console.service) as client:
        answer = await client.post("/admin/login", data={"key": console.key, "next": wanted})

    assert answer.headers["Location"] == place_after


async def test_ended_session_sends_a_page_to_the_sign_in_and_back(console: Console) -> None:
    async with browser(console.service) as client:
        page = await client.get("/admin/verifications?standing=passed&rule_id=1")
        fragment = await client.get("/admin/verifications", headers={"HX-Request": "true"})
        form = await client.post("/admin/keys", data={"name": "x"})

    back = "/admin/login?next=%2Fadmin%2Fverifications"
    assert place(page) == (303, f"{back}%3Fstanding%3Dpassed%26rule_id%3D1")
    assert (fragment.status_code, fragment.headers["HX-Redirect"]) == (401, back)
    assert place(form) == TO_SIGN_IN


async def test_api_does_not_accept_the_cookie_and_the_console_no_key(console: Console) -> None:
    async with visiting(console.service, console.key) as client:
        api = await client.get("/v1/me")
    async with console.service.client(console.key) as keyed:
        page = await keyed.get("/admin")

    assert (api.status_code, place(page)) == (401, TO_SIGN_IN)


@pytest.mark.parametrize(
    ("base_url", "is_warned"),
    [("http://intranet.test", True), ("http://127.0.0.1", False), ("http://localhost", False), (BASE, False)],
)
async def test_sign_in_warns_where_the_browser_keeps_no_cookie(
    console: Console, base_url: str, *, is_warned: bool
) -> None:
    async with browser(console.service, base_url=base_url) as client:
        answer = await client.get("/admin/login")

    assert ("This page needs HTTPS" in answer.text) is is_warned


@ON_SQLITE
async def test_console_can_be_switched_off(settings: Settings) -> None:
    off = replace(settings, console=settings.console.model_copy(update={"console": False}))
    async with running(off, with_worker=False) as service, browser(service) as client:
        answers = [await client.get(path) for path in ("/admin", "/admin/login")]

    assert [answer.status_code for answer in answers] == [404, 404]


@ON_SQLITE
async def test_sign_ins_at_the_same_time_open_sessions_of_their_own(idle_service: Running) -> None:
    key = await idle_service.key(*everything())
    sessions = idle_service.services.sessions

    ids = await asyncio.gather(*(sessions.sign_in(key, address=None, request_id="r") for _ in range(5)))

    assert len(set(ids)) == 5


async def test_malformed_session_has_ended_and_disturbs_no_other(idle_service: Running) -> None:
    key = await idle_service.key(Scope.RESULTS_READ)
    bad = "'zzz'" if idle_service.services.database.is_embedded else "'4713-01-01 00:00:00+00 BC'"
    async with visiting(idle_service, key) as other:
        for column, value in (("scopes", "'zzz'"), ("seen_at", bad), ("expires_at", bad)):
            async with visiting(idle_service, key) as client:
                async with idle_service.services.database.write() as tx:
                    newest = select(console_session.c.id_hash).order_by(console_session.c.created_at.desc()).limit(1)
                    id_hash = await tx.connection.scalar(newest)
                    changed = text(f"UPDATE console_session SET {column} = {value} WHERE id_hash = :id_hash")
                    await tx.connection.execute(changed, {"id_hash": id_hash})
                assert place(await client.get("/admin")) == TO_SIGN_IN
        assert (await other.get("/admin")).status_code == 200
