"""The ring is rotated while everything can be read; then the older versions can go."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
import structlog

from app.config import Settings
from app.errors import ConflictError, SetUpError
from app.factory import open_services, rotation
from app.sealing.keyring import KeyRing, Ring
from simulator.people import person_of
from tests.support.api import retrieved
from tests.support.service import Running

LATER = timedelta(minutes=6)


async def sees_everything(api: httpx.AsyncClient, biz_token: str) -> bool:
    identity = await api.get(f"/v1/verifications/{biz_token}/identity")
    video = await api.get(f"/v1/verifications/{biz_token}/media/liveness_video")
    person = person_of(biz_token)
    search = await api.post("/v1/verifications/search", json={"id_card": person.id_card})
    return (
        identity.json()["name"] == person.name
        and video.status_code == 200
        and [item["biz_token"] for item in search.json()["items"]] == [biz_token]
    )


async def test_everything_is_read_before_during_and_after_a_rotation(service: Running, api: httpx.AsyncClient) -> None:
    biz_token, ring = await retrieved(api), service.services.vault.keyring
    rotate = rotation(service.services)
    late = rotation(service.services, clock=lambda: datetime.now(UTC) + LATER)

    for each in Ring:
        async for done, total in rotate.rotate(each):
            assert done <= total
            assert await sees_everything(api, biz_token)
        assert await rotate.in_use(each) == {2: {Ring.IDENTITY: 2, Ring.BIOMETRIC: 4, Ring.INDEX: 1}[each]}
        with pytest.raises(ConflictError):
            await rotate.destroy_unused(each)
        assert await late.destroy_unused(each) == [1]

    assert [[known.version for known in ring.versions(each)] for each in Ring] == [[2]] * 3
    assert await sees_everything(api, biz_token)
    assert await sees_everything(api, await retrieved(api))


async def test_an_interrupted_rotation_goes_on_where_it_was(service: Running, api: httpx.AsyncClient) -> None:
    biz_token, ring = await retrieved(api), service.services.vault.keyring
    rotate = rotation(service.services)

    async for _ in rotate.rotate(Ring.BIOMETRIC):
        break  # after the new version was made, before anything was sealed by it

    assert await rotate.in_use(Ring.BIOMETRIC) == {1: 4}
    assert [step async for step in rotate.rotate(Ring.BIOMETRIC)][-1] == (4, 4)
    assert (ring.newest(Ring.BIOMETRIC), await rotate.in_use(Ring.BIOMETRIC)) == (2, {2: 4})
    assert await sees_everything(api, biz_token)


async def test_a_version_that_is_needed_is_not_destroyed(service: Running, api: httpx.AsyncClient) -> None:
    await retrieved(api)
    service.services.vault.keyring.add(Ring.IDENTITY)
    late = rotation(service.services, clock=lambda: datetime.now(UTC) + LATER)

    assert await late.destroy_unused(Ring.IDENTITY) == []


async def test_another_ring_or_none_is_refused_at_the_start(settings: Settings, api: httpx.AsyncClient) -> None:
    await retrieved(api)
    settings.keyring_path.unlink()
    with pytest.raises(SetUpError, match="KEYRING_FILE"):
        async with open_services(settings):
            pass

    KeyRing.create(settings.keyring_path)
    with structlog.testing.capture_logs(), pytest.raises(SetUpError, match="another key ring"):
        async with open_services(settings):
            pass
