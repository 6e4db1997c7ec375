"""Tencent's messages: encrypted like the identity, also those that earlier versions stored readable."""

from dataclasses import asdict

import httpx
from sqlalchemy import select, update

from app.domain.detection import MESSAGES
from app.domain.personal import Masked
from app.sealing.fields import FieldCipher
from app.sealing.keyring import Ring
from app.storage.tables import detection, liveness_attempt
from tests.support.api import get, retrieve_new, row_of, url
from tests.support.service import Running

COLUMNS = [detection.c[name] for name in MESSAGES]


async def readable(service: Running) -> list[str]:
    """Returns the messages that the database contains in clear."""
    async with service.services.database.read() as tx:
        rows = [*await tx.connection.execute(select(*COLUMNS))]
        rows += await tx.connection.execute(select(liveness_attempt.c.err_msg))
    return [value for row in rows for value in row if value is not None]


async def store_like_an_earlier_version(service: Running, biz_token: str) -> None:
    """Moves the messages of a result to the readable columns, bound by the digest."""
    cipher, row = service.services.cipher, await row_of(service.services, biz_token)
    key = cipher.keyring.unwrap(Ring.IDENTITY, row.sealed_key or b"", "verification", row.client, row.biz_token)
    async with service.services.database.write() as tx:
        known = (await tx.results.texts([row.id], sealed=True))[row.id]
        found = cipher.open_text(row, known)
        masks = FieldCipher(key).seal(asdict(Masked(name="样*")), "detection", "masked", biz_token)
        messages = {name: getattr(found, name) for name in MESSAGES}
        await tx.connection.execute(update(detection).values(masked=masks, **messages))
        await tx.connection.execute(update(liveness_attempt).values(err_msg=found.liveness_attempts[0].err_msg))
        earlier = (await tx.results.texts([row.id], sealed=True))[row.id]
        await tx.verifications.save(row, cipher.with_digest(row, row, text=earlier), service.services.clock())


async def test_messages_are_answered_but_not_stored_readable(service: Running, api: httpx.AsyncClient) -> None:
    biz_token = await retrieve_new(api, "failed-2006")

    verdict = (await get(api, biz_token))["verdict"]
    identity = (await api.get(url(biz_token, "identity"))).json()

    names = ("err_msg", "live_msg", "compare_msg")
    assert [verdict[name] for name in names] == ["姓名和身份证号不一致", "成功", "姓名和身份证号不一致"]
    assert [identity[name] for name in names] == [verdict[name] for name in names]
    assert {attempt["err_msg"] for attempt in identity["liveness_attempts"]} == {"姓名和身份证号不一致"}
    assert await readable(service) == []


async def test_readable_messages_are_answered_and_sealed_by_a_rotation(
    service: Running, api: httpx.AsyncClient
) -> None:
    biz_token = await retrieve_new(api, "failed-2006")
    before = await get(api, biz_token)
    await store_like_an_earlier_version(service, biz_token)
    stored = await readable(service)
    seen = await get(api, biz_token)

    steps = [step async for step in service.services.key_rotation.rotate(Ring.IDENTITY)]

    assert stored == ["姓名和身份证号不一致", "成功", "姓名和身份证号不一致", *["姓名和身份证号不一致"] * 3]
    assert seen["verdict"] == before["verdict"]
    assert seen["liveness_attempts"] == before["liveness_attempts"]
    assert await readable(service) == []
    assert await get(api, biz_token) == before
    assert steps[-1].altered == 0
