"""A person is found by exactly this number, or by it and exactly this name, among the own client's verifications."""

from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.domain.access import Scope
from simulator.people import person_of
from tests.support.api import retrieved
from tests.support.service import Running, everything

SEARCH = "/v1/verifications/search"


async def found(api: httpx.AsyncClient, **wanted: object) -> list[str]:
    answer = await api.post(SEARCH, json=wanted)
    assert answer.status_code == 200
    return [item["biz_token"] for item in answer.json()["items"]]


async def test_a_person_is_found_by_number_and_by_number_and_name(service: Running) -> None:
    async with service.client(await service.key(*everything(), client="one")) as api:
        biz_token, _ = await retrieved(api), await retrieved(api)
        person = person_of(biz_token)
        number, name = person.id_card, person.name
        results = [
            await found(api, id_card=number),
            await found(api, id_card=f" {number[:6]} {number[6:].lower()}"),
            await found(api, id_card=number, name=name),
            await found(api, id_card=number, name=f"{name}x"),
            await found(api, id_card=number[:-1]),
            await found(api, id_card=number, outcome="failed"),
            await found(api, id_card=number, state="retrieved", limit=1),
        ]
    async with service.client(await service.key(*everything(), client="two")) as stranger:
        foreign = await found(stranger, id_card=number)
        refused = await stranger.post(SEARCH, json={"id_card": number, "client": "one"})
    async with service.client(await service.key(Scope.ADMIN, client="admins")) as admin:
        seen = [await found(admin, id_card=number, client="one"), await found(admin, id_card=number)]

    assert results == [[biz_token], [biz_token], [biz_token], [], [], [], [biz_token]]
    assert (foreign, refused.status_code, seen) == ([], 403, [[biz_token], []])


@pytest.mark.parametrize("body", [{}, {"name": "样甲"}, {"id_card": ""}, {"id_card": "0%"}, {"id_card": None}])
async def test_without_a_number_nobody_is_looked_for(shared_api: httpx.AsyncClient, body: dict[str, Any]) -> None:
    answer = await shared_api.post(SEARCH, json=body)

    if body == {"id_card": "0%"}:  # no pattern: nobody has that number
        assert answer.json() == {"items": [], "next_cursor": None}
    else:
        assert (answer.status_code, "样甲" in answer.text) == (422, False)


async def test_a_key_that_tries_numbers_out_is_stopped_and_others_are_not(idle_service: Running) -> None:
    one, other = await idle_service.key(*everything()), await idle_service.key(*everything())
    async with idle_service.client(one) as api:
        answers = [await api.post(SEARCH, json={"id_card": f"00000019900101{n:04}"}) for n in range(90)]
    async with idle_service.client(other) as api:
        elsewhere = await api.post(SEARCH, json={"id_card": "000000199001011234"})

    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert all(answer.headers["Retry-After"] == "1" for answer in refused)
    assert {answer.status_code for answer in answers} == {200, 429}
    assert elsewhere.status_code == 200
    async with idle_service.services.database.read() as tx:
        on_record = await tx.scalar(text("SELECT count(*) FROM audit WHERE action = 'search'"))
    assert on_record == len(answers) - len(refused) + 1
