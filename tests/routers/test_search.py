"""Search by ID number, or by number and name, among the client's own verifications."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.domain.api_key import Scope
from app.domain.detection import Detection, Outcome, SealedText
from app.domain.verification import State, Verification
from app.sealing.keyring import Ring
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


NUMBER = "000000199001011234"


async def store(service: Running, biz_token: str, name: str, indexed_name: str | None = None) -> None:
    """Stores a result with this name. The digest is that of an earlier version if it is given the name to index."""
    services, client = service.services, "default"
    now = datetime.now(UTC)
    row = Verification(
        client=client,
        biz_token=biz_token,
        rule_id="1",
        sealed_key=services.cipher.new_key(client, biz_token),
        state=State.RETRIEVED,
        outcome=Outcome.PASSED,
        registered_at=now,
        deadline_at=now,
        due_at=None,
    )
    text = services.cipher.seal_text(row, Detection(id_card=NUMBER, name=name))
    if indexed_name:
        mac = services.cipher.keyring.mac("person", client, NUMBER, indexed_name)
        text = SealedText(dict(text.values) | {"person_index": mac})
    async with services.database.write() as tx:
        added = await tx.verifications.add_all([row])
        await tx.results.add_all([(added[row.owner].id, text, [])])


async def test_search_ignores_the_spelling_of_middle_dots_and_invisible_characters(idle_service: Running) -> None:
    await store(idle_service, "dotted", "样甲•测\u200b乙")
    async with idle_service.client(await idle_service.key(*everything())) as api:
        names = ["样甲·测乙", "样甲 ･ 测乙", "\ufeff样甲.测乙", "样甲●测乙\u00ad", "样甲•测\u200b乙"]
        found = [await search(api, id_card=f"{NUMBER[:6]}\u200d{NUMBER[6:]}", name=name) for name in names]
        others = [await search(api, id_card=NUMBER, name=name) for name in ("样甲测乙", "样·甲测乙")]

    assert (found, others) == ([["dotted"]] * len(names), [[], []])


async def test_name_of_an_earlier_version_is_found_by_any_middle_dot(idle_service: Running) -> None:
    await store(idle_service, "old", "样甲•测乙", indexed_name="样甲•测乙")
    await store(idle_service, "old-and-invisible", "样甲•测\u200b丙", indexed_name="样甲•测\u200b丙")
    async with idle_service.client(await idle_service.key(*everything())) as api:
        before = [await search(api, id_card=NUMBER, name=name) for name in ("样甲·测乙", "样甲・测乙", "样甲·测丙")]
        async for _ in idle_service.services.key_rotation.rotate(Ring.INDEX):
            pass
        after = [await search(api, id_card=NUMBER, name=name) for name in ("样甲·测乙", "样甲・测乙", "样甲·测丙")]

    assert before == [["old"], ["old"], []]
    assert after == [["old"], ["old"], ["old-and-invisible"]]


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
