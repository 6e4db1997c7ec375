"""The pages of verifications: list, search and export, one verification, and what its forms do."""

import re
from html import unescape

import httpx
import pytest

from app.config import Settings
from app.domain.api_key import Scope
from simulator.people import person_of
from tests.console.conftest import Console
from tests.support.api import call_back, list_tokens, retrieve_new, token
from tests.support.console import LIST, audited, path, visiting, words_of
from tests.support.service import Running, everything, running

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def test_failed_verification_is_explained(console: Console, admin: httpx.AsyncClient) -> None:
    words = words_of(await admin.get(path(console.failed)))

    assert (
        "Not passed 2016 比对相似度低于通过标准 Comparison with the ID photo Not the same person for certain" in words
    )
    assert "Liveness detection 0 成功 Face comparison 2016" in words
    assert "Provisional: it may still change" in words
    for entry in (
        "Callback received: the person is done",
        "Called GetDetectInfo",
        "RequestId",
        "Result stored: Not passed",
    ):
        assert entry in words
    assert words.index("Callback received") < words.index("Called GetDetectInfo") < words.index("Result stored")


@ON_SQLITE
async def test_list_filters_by_links_and_keeps_them_over_pages(settings: Settings) -> None:
    async with running(settings, with_worker=False) as service:
        async with service.client(await service.key(*everything())) as api:
            for _ in range(53):
                await call_back(api)
            newest = await list_tokens(api)
        async with visiting(service, await service.key(Scope.RESULTS_READ)) as client:
            first = await client.get(LIST, params={"standing": "pending", "from": "2026-01-01"})
            (following,) = re.findall(r'href="([^"]+)" rel="next"', first.text)
            second = await client.get(following.replace("&amp;", "&"))
            other = await client.get(LIST, params={"standing": "passed"})

    assert [
        re.findall(r'<td class="token"><a href="/admin/verifications/([^"]+)">', page.text) for page in (first, second)
    ] == [
        newest[:50],
        newest[50:],
    ]
    assert "standing=pending" in following
    assert "First page" in second.text
    assert "No verification matches these filters" in other.text


async def test_list_is_exported_as_it_is_filtered(console: Console, admin: httpx.AsyncClient) -> None:
    page = await admin.get(LIST, params={"standing": "passed"})
    address = re.findall(r'href="([^"]+)" download>CSV', page.text)[0].replace("&amp;", "&")
    table = await admin.get(address)
    unknown = await admin.get(f"{LIST}/export", params={"format": "pdf"})

    assert (table.status_code, table.headers["Content-Type"].partition(";")[0]) == (200, "text/csv")
    assert table.headers["Content-Disposition"].startswith("attachment; filename=")
    assert (console.passed in table.text, console.failed in table.text) == (True, False)
    assert person_of(console.passed).id_card not in table.text
    assert unknown.status_code == 400


async def test_search_box_finds_tokens_and_references(console: Console, admin: httpx.AsyncClient) -> None:
    async with console.service.client(console.key) as api:
        referenced = token()
        await api.put(f"/v1/verifications/{referenced}", json={"subject_ref": "loan 4711"})
    by_token = await admin.get(LIST, params={"q": console.passed})
    by_reference = await admin.get(LIST, params={"q": "loan 4711"})
    unknown = await admin.get(LIST, params={"q": "nothing-like-it"})
    number = await admin.get(LIST, params={"q": person_of(console.passed).id_card})
    hint = await admin.get(number.headers["Location"])

    assert (by_token.status_code, by_token.headers["Location"]) == (303, path(console.passed))
    assert re.findall(r'class="token"><a href="([^"]+)"', by_reference.text) == [path(referenced)]
    assert "No verification matches these filters" in unknown.text
    assert (number.status_code, number.headers["Location"]) == (303, f"{LIST}?notice=number")
    assert "An ID number must not be in an address." in hint.text


async def test_person_is_found_by_number_which_no_page_repeats(service: Running) -> None:
    async with service.client(await service.key(*everything())) as api:
        biz_token = await retrieve_new(api)
    person = person_of(biz_token)
    async with visiting(service, await service.key(Scope.RESULTS_READ)) as client:
        found = await client.post(f"{LIST}/search", data={"id_card": person.id_card, "name": person.name})
        missed = await client.post(f"{LIST}/search", data={"id_card": "000000199001010000"})
        empty = await client.post(f"{LIST}/search", data={})

    assert re.findall(r'class="token"><a href="([^"]+)"', found.text) == [path(biz_token)]
    assert person.id_card not in found.text
    assert person.name not in found.text
    assert "Nobody found" in missed.text
    assert empty.status_code == 400
    assert [row for row in await audited(service) if row[0] == "search"] == [
        ("search", "id_card name", None, "found 1"),
        ("search", "id_card", None, "found 0"),
    ]


@ON_SQLITE
async def test_retrieval_hold_and_erasure_are_forms_that_lead_back(service: Running) -> None:
    async with service.client(await service.key(*everything())) as api:
        biz_token = await retrieve_new(api)
    async with visiting(service, await service.key(Scope.ADMIN)) as client:
        answers = [
            await client.post(path(biz_token, *action), data=data)
            for action, data in (
                (["retrieve"], {}),
                (["hold"], {"held": "yes", "purpose": "court"}),
                (["erase"], {"confirmation": biz_token[-6:], "purpose": "request"}),
                (["hold"], {"held": "no", "purpose": "court ended"}),
                (["erase"], {"confirmation": "abcdef", "purpose": "request"}),
                (["erase"], {"confirmation": biz_token[-6:]}),
                (["erase"], {"confirmation": biz_token[-6:], "purpose": "request"}),
            )
        ]
        erased = await client.get(answers[-1].headers["Location"])
    rows = [row for row in await audited(service) if row[0] != "sign_in"]

    assert [
        (answer.status_code, answer.headers.get("Location", "").removeprefix(path(biz_token))) for answer in answers
    ] == [
        (303, "?done=retrieve"),
        (303, "?done=hold"),
        (409, ""),
        (303, "?done=release"),
        (303, "?problem=confirmation#erase"),
        (400, ""),
        (303, "?done=erase"),
    ]
    assert "Lift the hold first" in answers[2].text
    assert "Text, media and keys are erased." in words_of(erased)
    assert "Text, media and keys erased" in words_of(erased)
    assert person_of(biz_token).id_card[0] + "*" not in erased.text
    assert rows == [
        ("retrieve", "", None, "done"),
        ("hold", "", "court", "done"),
        ("release", "", "court ended", "done"),
        ("erase", "", "request", "done"),
    ]


@ON_SQLITE
async def test_token_of_several_clients_is_chosen_in_the_list(idle_service: Running) -> None:
    biz_token = token()
    for client in ("bank", "shop"):
        async with idle_service.client(await idle_service.key(*everything(), client=client)) as api:
            await api.post("/v1/callbacks", json={"BizToken": biz_token})
    async with visiting(idle_service, await idle_service.key(Scope.ADMIN)) as admin:
        bare = await admin.get(path(biz_token))
        named = await admin.get(path(biz_token), params={"client": "shop"})

    assert (bare.status_code, "Several clients have this token" in bare.text) == (409, True)
    assert "Client shop" in words_of(named)


async def test_audit_of_a_verification_is_a_link_for_admins(console: Console, admin: httpx.AsyncClient) -> None:
    async with visiting(console.service, await console.service.key(*everything())) as client:
        for_others = await client.get(path(console.failed))
    await admin.post(path(console.failed, "reveal"), data={"identity": "on", "purpose": "who saw it"})
    page = await admin.get(path(console.failed))
    (url,) = re.findall(r'href="(/admin/audit[?][^"]+)"', page.text)
    audit = words_of(await admin.get(unescape(url)))

    assert "/admin/audit" not in for_others.text
    assert "who saw it ID number, Name" in audit
