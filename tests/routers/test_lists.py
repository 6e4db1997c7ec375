"""Lists: filters, pages and cursors."""

import base64
from itertools import product

import httpx
import pytest
from sqlalchemy import text

from app.domain.api_key import Scope
from tests.support.api import get, retrieve_new, token
from tests.support.service import Running, everything

URL = "/v1/verifications"
RANGES = ("registered", "received", "retrieved", "updated")


async def tokens(api: httpx.AsyncClient, **filters: str | list[str]) -> list[str]:
    answer = await api.get(URL, params=filters)
    assert answer.status_code == 200
    return [item["biz_token"] for item in answer.json()["items"]]


async def test_filters_apply_alone_and_together(api: httpx.AsyncClient) -> None:
    passed, failed = await retrieve_new(api), await retrieve_new(api, "failed-1001")
    expired, registered = token("expired"), token()
    await api.post("/v1/callbacks", json={"BizToken": expired, "RuleId": "7"})
    await get(api, expired, wait=20)
    await api.put(f"{URL}/{registered}", json={"subject_ref": "贷款 4711", "rule_id": "7"})
    received_at = (await get(api, failed))["received_at"]

    assert await tokens(api) == [registered, expired, failed, passed]
    assert await tokens(api, state="pending") == [registered]
    assert await tokens(api, state="retrieved") == [failed, passed]
    assert await tokens(api, state="erased") == []
    assert await tokens(api, outcome="failed") == [failed]
    assert await tokens(api, rule_id="7") == [registered, expired]
    assert await tokens(api, subject_ref="贷款 4711") == [registered]
    assert await tokens(api, received_from=received_at) == [expired, failed]
    assert await tokens(api, received_to=received_at) == [passed]
    assert await tokens(api, received_from=received_at, received_to=received_at) == []
    assert await tokens(api, rule_id="1", state="retrieved", outcome="passed", received_to=received_at) == [passed]
    assert await tokens(api, state=["pending", "expired"]) == [registered, expired]
    assert await tokens(api, outcome=["failed", "passed"], order="asc") == [passed, failed]
    assert await tokens(api, err_code="1001") == [failed]
    assert await tokens(api, err_code=["0", "1001"], rule_id="1") == [failed, passed]
    assert await tokens(api, err_code=["0", "1001"], received_to=received_at) == [passed]
    assert await tokens(api, err_code="2016") == []


async def test_every_verification_is_in_a_range(api: httpx.AsyncClient) -> None:
    registered, retrieved, erased = token(), await retrieve_new(api), await retrieve_new(api)
    await api.put(f"{URL}/{registered}")
    await api.delete(f"{URL}/{erased}")
    start, end = "2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z"

    found = {name: await tokens(api, **{f"{name}_from": start, f"{name}_to": end}) for name in RANGES}

    assert found == {
        "registered": [registered],
        "received": [erased, retrieved],
        "retrieved": [retrieved],
        "updated": [erased, registered, retrieved],
    }
    assert await tokens(api, updated_from=start, order="asc") == [retrieved, registered, erased]


async def test_change_moves_a_verification_to_the_end_of_the_updates(idle_api: httpx.AsyncClient) -> None:
    for biz_token in ("one", "two"):
        await idle_api.put(f"{URL}/{biz_token}")
    before = await get(idle_api, "one")
    await idle_api.put(f"{URL}/one", json={"subject_ref": "loan-1"})
    after = await get(idle_api, "one")
    await idle_api.put(f"{URL}/two")

    assert before["updated_at"] < after["updated_at"]
    assert before["updated_at"] == before["registered_at"]
    assert await tokens(idle_api, updated_from=after["updated_at"]) == ["one"]
    assert await tokens(idle_api, updated_from=before["updated_at"], order="asc") == ["two", "one"]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(
    "within", [{}, *({f"{name}_from": "2026-01-01T00:00:00Z"} for name in ("updated", "received"))]
)
async def test_pages_follow_each_other_in_both_orders(
    idle_api: httpx.AsyncClient, order: str, within: dict[str, str]
) -> None:
    known = [f"known-{number}" for number in range(5)]
    for biz_token in known:
        await idle_api.post("/v1/callbacks", json={"BizToken": biz_token})

    seen, cursor = list[str](), ""
    while cursor is not None:
        answer = await idle_api.get(URL, params={"limit": 2, "order": order, "cursor": cursor, **within})
        seen += [item["biz_token"] for item in answer.json()["items"]]
        cursor = answer.json()["next_cursor"]

    assert seen == (known if order == "asc" else known[::-1])


async def test_two_ranges_are_rejected(shared_api: httpx.AsyncClient) -> None:
    params = {"received_from": "2026-01-01T00:00:00Z", "updated_to": "2026-01-01T00:00:00Z"}
    answers = [
        await shared_api.get(URL, params=params),
        await shared_api.post(f"{URL}/search", json={"id_card": "000000199001011234", **params}),
    ]

    problems = [(answer.status_code, answer.json()["detail"]) for answer in answers]
    rest = "may have only one range of time: registered, received, retrieved, updated."
    assert problems == [(422, f"The query {rest}"), (422, f"The body {rest}")]


async def test_admin_lists_one_client_and_others_only_their_own(idle_service: Running) -> None:
    for client in ("one", "two"):
        async with idle_service.client(await idle_service.key(*everything(), client=client)) as api:
            await api.put(f"{URL}/of-{client}")
            own = await tokens(api, client=client)
            foreign = await api.get(URL, params={"client": "one" if client == "two" else "two"})
            assert (own, foreign.status_code) == ([f"of-{client}"], 403)
    async with idle_service.client(await idle_service.key(Scope.ADMIN)) as admin:
        assert await tokens(admin, client="one") == ["of-one"]
        assert await tokens(admin) == ["of-two", "of-one"]
        assert await tokens(admin, client="nobody") == []


async def test_list_item_equals_the_answer_of_get(api: httpx.AsyncClient) -> None:
    biz_token = await retrieve_new(api, "failed-2003")

    page = (await api.get(URL)).json()

    assert page == {"items": [await get(api, biz_token)], "next_cursor": None}


async def test_pages_have_each_row_once_while_rows_are_added(idle_api: httpx.AsyncClient) -> None:
    known = [f"known-{number:02}" for number in range(10)]
    for biz_token in known:
        await idle_api.put(f"{URL}/{biz_token}")

    seen, sizes, cursor = list[str](), list[int](), ""
    while cursor is not None:
        page = (await idle_api.get(URL, params={"limit": 3, "cursor": cursor})).json()
        seen += [item["biz_token"] for item in page["items"]]
        sizes.append(len(page["items"]))
        cursor = page["next_cursor"]
        await idle_api.put(f"{URL}/{token()}")

    assert seen == known[::-1]
    assert sizes == [3, 3, 3, 1]


async def test_full_last_page_has_no_next_cursor(idle_api: httpx.AsyncClient) -> None:
    for number in range(4):
        await idle_api.put(f"{URL}/known-{number}")

    first = (await idle_api.get(URL, params={"limit": 2})).json()
    last = (await idle_api.get(URL, params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert [item["biz_token"] for item in last["items"]] == ["known-1", "known-0"]
    assert last["next_cursor"] is None


async def test_pages_of_a_time_range_are_complete_if_times_are_equal(idle_service: Running) -> None:
    async with idle_service.client(await idle_service.key(*everything())) as api:
        for number in range(7):
            await api.post("/v1/callbacks", json={"BizToken": f"tied-{number}"})
        await api.put(f"{URL}/registered")
        async with idle_service.services.database.write() as tx:
            first = await tx.connection.scalar(text("SELECT min(received_at) FROM verification"))
            await tx.connection.execute(
                text("UPDATE verification SET received_at = :at WHERE received_at > :at"), {"at": first}
            )
        seen, cursor = list[str](), None
        while cursor != "":
            page = await api.get(URL, params={"received_from": "2026-01-01T00:00:00Z", "limit": 3, "cursor": cursor})
            seen += [item["biz_token"] for item in page.json()["items"]]
            cursor = page.json()["next_cursor"] or ""

    assert seen == [f"tied-{number}" for number in range(6, -1, -1)]


async def test_cursor_of_another_list_is_rejected(idle_service: Running) -> None:
    async with idle_service.client(await idle_service.key(Scope.ADMIN)) as api:
        for number in range(3):
            await api.post("/v1/callbacks", json={"BizToken": f"one-{number}"})
            await api.post(f"{URL}/search", json={"id_card": str(number)})
        start = "2026-01-01T00:00:00Z"
        lists = {
            URL: {},
            f"{URL}?asc": {"order": "asc"},
            f"{URL}?received": {"received_from": start},
            f"{URL}?received asc": {"received_from": start, "order": "asc"},
            f"{URL}?updated": {"updated_from": start},
            "/v1/audit": {},
        }
        pages = {
            name: (await api.get(name.split("?")[0], params={"limit": 1, **of})).json() for name, of in lists.items()
        }
        answers = {
            (name, origin): await api.get(name.split("?")[0], params={"cursor": page["next_cursor"], **of})
            for (name, of), (origin, page) in product(lists.items(), pages.items())
        }

    results = {pair: (answer.status_code, answer.json().get("code")) for pair, answer in answers.items()}
    assert results == {(a, b): (200, None) if a == b else (400, "invalid_cursor") for a, b in product(lists, lists)}


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


INVALID_RANGE_CURSORS = [
    "r1",
    "r1.",
    "r.1",
    "r01.1",
    "r1.01",
    "r1.-1",
    f"r1.{2**63}",
    f"r{10**30}.1",
    "1.1",
    "rr1.1",
    "1",
]
INVALID_POSITIONS = ["-1", "01", " 1", "1_0", "1.0", "٣", str(2**63), "x"]


@pytest.mark.parametrize("cursor", ["x", "MQ==", "M Q", "MQ\n", "坏", "\x00", "____", *map(encoded, INVALID_POSITIONS)])
async def test_invalid_cursor_is_rejected(shared_api: httpx.AsyncClient, cursor: str) -> None:
    answer = await shared_api.get(URL, params={"cursor": cursor})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize("text", INVALID_RANGE_CURSORS)
async def test_invalid_cursor_of_a_time_range_is_rejected(shared_api: httpx.AsyncClient, text: str) -> None:
    answer = await shared_api.get(URL, params={"cursor": encoded(text), "received_from": "2026-01-01T00:00:00Z"})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


async def test_cursor_after_the_last_row_returns_an_empty_page(shared_api: httpx.AsyncClient) -> None:
    answer = await shared_api.get(URL, params={"cursor": encoded("0")})

    assert answer.json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "201"),
        ("limit", "-1"),
        ("limit", "9" * 5000),
        ("limit", "1.5"),
        ("limit", ""),
        ("cursor", "x" * 65),
        ("state", "PENDING"),
        ("state", ""),
        ("outcome", "none"),
        ("rule_id", "a b"),
        ("subject_ref", "nul\x00"),
        ("received_from", "0001-01-01T00:00:00+14:00"),
        ("received_from", "1715327563"),
        ("received_to", "9999-12-31T23:59:59-14:00"),
        ("received_to", "2026-05-10T15:52:43"),
        ("registered_from", "1715327563"),
        ("updated_to", "today"),
        ("order", "up"),
        ("client", ""),
    ],
)
async def test_invalid_filter_is_rejected(shared_api: httpx.AsyncClient, name: str, value: str) -> None:
    answer = await shared_api.get(URL, params={name: value})

    assert (answer.status_code, answer.json()["errors"][0]["location"][:2]) == (422, ["query", name])


@pytest.mark.parametrize("limit", ["1", "200"])
async def test_smallest_and_largest_limit_are_accepted(shared_api: httpx.AsyncClient, limit: str) -> None:
    assert (await shared_api.get(URL, params={"limit": limit})).status_code == 200
