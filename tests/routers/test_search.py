"""Search by ID number, or by number and name, among the client's own verifications."""

from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.domain.api_key import Scope
from simulator.people import person_of
from tests.support.api import retrieve_new
from tests.support.service import Running, everything

SEARCH = "/v1/verifications/search"


async def search(api: httpx.AsyncClient, **query: object) -> list[str]:
    answer = await api.post(SEARCH, json=query)
    assert answer.status_code == 200
    return [item["biz_token"] for item in answer.json()["items"]]


async def test_search_matches_the_number_and_the_name_exactly(service: Running) -> None:
    async with service.client(await service.key(*everything(), client="one")) as api:
        biz_token, _ = await retrieve_new(api), await retrieve_new(api)
        person = person_of(biz_token)
        number, name = person.id_card, person.name
        results = [
            await search(api, id_card=number),
            await search(api, id_card=f" {number[:6]} {number[6:].lower()}"),
            await search(api, id_card=number, name=name),
            await search(api, id_card=number, name=f"{name}x"),
            await search(api, id_card=number[:-1]),
            await search(api, id_card=number, outcome="failed"),
            await search(api, id_card=number, state="retrieved", limit=1),
        ]
    async with service.client(await service.key(*everything(), client="two")) as stranger:
        foreign = await search(stranger, id_card=number)
        refused = await stranger.post(SEARCH, json={"id_card": number, "client": "one"})
    async with service.client(await service.key(Scope.ADMIN, client="admins")) as admin:
        seen = [await search(admin, id_card=number, client="one"), await search(admin, id_card=number)]

    assert results == [[biz_token], [biz_token], [biz_token], [], [], [], [biz_token]]
    assert (foreign, refused.status_code, seen) == ([], 403, [[biz_token], []])


@pytest.mark.parametrize("body", [{}, {"name": "样甲"}, {"id_card": ""}, {"id_card": "0%"}, {"id_card": None}])
async def test_search_requires_a_number_and_knows_no_patterns(
    shared_api: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    answer = await shared_api.post(SEARCH, json=body)

    # The text is not a pattern: no person has this number.
    if body == {"id_card": "0%"}:
        assert answer.json() == {"items": [], "next_cursor": None}
    else:
        assert (answer.status_code, "样甲" in answer.text) == (422, False)


async def test_search_rate_limit_applies_to_each_key_separately(idle_service: Running) -> None:
    one, other = await idle_service.key(*everything()), await idle_service.key(*everything())
    async with idle_service.client(one) as api:
        answers = [await api.post(SEARCH, json={"id_card": f"00000019900101{n:04}"}) for n in range(90)]
    async with idle_service.client(other) as api:
        other_answer = await api.post(SEARCH, json={"id_card": "000000199001011234"})

    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert all(answer.headers["Retry-After"] == "1" for answer in refused)
    assert {answer.status_code for answer in answers} == {200, 429}
    assert other_answer.status_code == 200
    async with idle_service.services.database.read() as tx:
        audited = await tx.connection.scalar(text("SELECT count(*) FROM audit WHERE action = 'search'"))
    assert audited == len(answers) - len(refused) + 1
