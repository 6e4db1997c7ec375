"""The unmasked identity: complete, for a stated purpose only, and audited before it is returned."""

import httpx
import pytest
from sqlalchemy import text

from app.domain.detection import Detection
from simulator.people import person_of
from tests.support.api import first_attempt_of, get, retrieve_new, token, url
from tests.support.rows import find_row
from tests.support.service import Running, everything


async def test_identity_has_every_field_as_tencent_sent_it(api: httpx.AsyncClient) -> None:
    biz_token = token()
    await api.post("/v1/callbacks", json={"BizToken": biz_token, "Extra": "case 7"})
    await get(api, biz_token, wait=20)
    person = person_of(biz_token)

    answer = await api.get(url(biz_token, "identity"), headers={"X-Purpose": "test"})

    assert answer.json() == {
        "biz_token": biz_token,
        "err_code": 0,
        "err_msg": "成功",
        "id_card": person.id_card,
        "name": person.name,
        "ocr_nation": person.nation,
        "ocr_address": person.address,
        "ocr_birth": f"{person.birth.year}/{person.birth.month}/{person.birth.day}",
        "ocr_authority": person.authority,
        "ocr_valid_date": person.valid_date,
        "ocr_name": person.name,
        "ocr_id_card": person.id_card,
        "ocr_gender": person.gender,
        "live_status": 0,
        "live_msg": "成功",
        "compare_status": 0,
        "compare_msg": "成功",
        "sim": f"{person.similarity:.2f}",
        "location": person.location,
        "extra": None,
        "further": {},
        "liveness_attempts": [
            {
                "err_code": 0,
                "err_msg": "成功",
                "requested_at": first_attempt_of(person),
                "name": person.name,
                "id_card": person.id_card,
                "req_time": str(person.first_attempt_ms),
                "further": {},
            }
        ],
        "callback_extra": "case 7",
    }


async def test_unmapped_fields_are_returned_as_further(service: Running) -> None:
    async with service.client(await service.key(*everything())) as api:
        biz_token = await retrieve_new(api)
        async with service.services.database.write() as tx:
            known = await find_row(tx, biz_token)
            assert known is not None
            newer = Detection(further={"Mobile": "000", "Levels": [1, {"a": None}]})
            sealed = service.services.cipher.seal_text(known, newer)
            await tx.results.remove(known.id, text=True, kinds=[])
            await tx.results.add_all([(known.id, sealed, [])])
            after = service.services.cipher.with_digest(known, known, text=sealed)
            await tx.verifications.save(known, after, service.services.clock())
        answer = await api.get(url(biz_token, "identity"), headers={"X-Purpose": "test"})
        view = await api.get(url(biz_token))

    assert answer.json()["further"] == {"Mobile": "000", "Levels": [1, {"a": None}]}
    assert "Mobile" not in view.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        *(
            {b"X-Purpose": value}
            for value in (
                b"",
                b"a\x00b",
                b"\xff",
                b"%FF",
                b"%E8%B4",
                b"5 %",
                b"%zz",
                b"a%0Ab",
                b"%20",
                b"%C2%A0",
                b"a%C2%85b",
            )
        ),
    ],
    ids=repr,
)
async def test_request_without_a_purpose_is_rejected_and_not_audited(
    idle_service: Running, headers: dict[bytes, bytes]
) -> None:
    async with idle_service.client(await idle_service.key(*everything())) as api:
        await api.put(url("a"))
        del api.headers["X-Purpose"]
        answer = await api.get(url("a", "identity"), headers=headers)

    assert (answer.status_code, answer.json()["errors"][0]["location"]) == (422, ["header", "X-Purpose"])
    assert await audited(idle_service) == []


async def audited(service: Running) -> list[tuple[object, ...]]:
    async with service.services.database.read() as tx:
        rows = await tx.connection.execute(
            text(
                "SELECT client, action, verification_id, purpose, request_id, outcome FROM audit"
                " WHERE subject IS NULL ORDER BY id"
            )
        )
    return [tuple(row) for row in rows]


@pytest.mark.parametrize(
    ("sent", "purpose"),
    [
        ("客服核查".encode(), "客服核查"),
        (b"%E8%B4%B7%E6%AC%BE%E5%AE%A1%E6%A0%B8", "贷款审核"),
        (b"%e8%b4%b7 loan+4711", "贷 loan+4711"),
        (b"5 %25 of 100%20cases", "5 % of 100 cases"),
        ("核".encode() * 256, "核" * 256),
        (b"%E6%A0%B8" * 256, "核" * 256),
    ],
    ids=["UTF-8", "percent-encoded", "mixed", "percent sign", "longest", "longest, percent-encoded"],
)
async def test_disclosure_is_audited_with_client_and_purpose(idle_service: Running, sent: bytes, purpose: str) -> None:
    headers = {b"X-Purpose": sent, b"X-Request-Id": b"request-0001"}
    async with idle_service.client(await idle_service.key(*everything(), client="shop")) as api:
        await api.put(url("a"))
        answers = [await api.get(url(biz_token, "identity"), headers=headers) for biz_token in ("a", "unknown")]

    assert [answer.status_code for answer in answers] == [200, 404]
    assert await audited(idle_service) == [
        ("shop", "identity", 1, purpose, "request-0001", "done"),
        ("shop", "identity", None, purpose, "request-0001", "not_found"),
    ]


async def test_disclosure_that_cannot_be_audited_is_refused(service: Running) -> None:
    async with service.client(await service.key(*everything())) as api:
        biz_token = await retrieve_new(api)
        async with service.services.database.write() as tx:
            await tx.connection.execute(text("ALTER TABLE audit RENAME TO renamed"))
        answer = await api.get(url(biz_token, "identity"), headers={"X-Purpose": "test"})

    assert answer.status_code == 503
    assert person_of(biz_token).id_card not in answer.text
