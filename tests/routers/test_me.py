"""A key describes itself, and is reported before it expires."""

import re
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import httpx
import pytest

from app.doctor import Doctor, Status
from app.domain.api_key import ApiKey, Scope
from tests.support.service import Running, actor

DAY = timedelta(days=1)


async def create(service: Running, valid_for: timedelta, name: str = "shop till") -> tuple[ApiKey, str]:
    networks = [ip_network("0.0.0.0/0"), ip_network("127.0.0.0/8")]
    return await service.services.api_keys.create(
        actor(),
        name,
        [Scope.RESULTS_READ, Scope.CALLBACKS_WRITE],
        client="shop",
        valid_for=valid_for,
        networks=networks,
    )


async def test_key_describes_itself(shared_service: Running) -> None:
    key, text = await create(shared_service, 90 * DAY)
    async with shared_service.client(text) as api:
        answer = await api.get("/v1/me")

    expires_at = answer.json().pop("expires_at")
    assert (answer.status_code, datetime.fromisoformat(expires_at)) == (200, key.expires_at)
    assert answer.json() | {"expires_at": None} == {
        "id": key.id,
        "name": "shop till",
        "client": "shop",
        "scopes": ["callbacks:write", "results:read"],
        "networks": ["0.0.0.0/0", "127.0.0.0/8"],
        "expires_at": None,
    }


@pytest.mark.parametrize(("valid_for", "is_announced"), [(13 * DAY, True), (15 * DAY, False)])
@pytest.mark.parametrize("path", ["/v1/me", "/v1/verifications", "/v1/audit", "/v1/verifications/unknown"])
async def test_answers_announce_the_end_of_their_key(
    shared_service: Running, path: str, valid_for: timedelta, *, is_announced: bool
) -> None:
    key, text = await create(shared_service, valid_for)
    async with shared_service.client(text) as api:
        answer = await api.get(path)

    announced = answer.headers.get("X-API-Key-Expires")
    assert announced == (f"{key.expires_at:%Y-%m-%dT%H:%M:%SZ}" if is_announced else None)


async def metrics(api: httpx.AsyncClient) -> set[tuple[str, str]]:
    text = (await api.get("/metrics")).text
    return set(
        re.findall(r'^faceid_api_key_expires_timestamp_seconds{key_id="(\w+)",name="(.*)"} ', text, re.MULTILINE)
    )


async def test_keys_that_expire_soon_are_reported(idle_service: Running) -> None:
    soon, _ = await create(idle_service, 13 * DAY, "soon")
    revoked, _ = await create(idle_service, 13 * DAY, "revoked")
    await idle_service.services.api_keys.revoke(actor(), revoked.id)
    for name, valid_for in (("late", 15 * DAY), ("expired", timedelta(0))):
        await create(idle_service, valid_for, name)

    async with idle_service.client(await idle_service.key(Scope.ADMIN)) as api:
        ready = (await api.get("/readyz")).json()
        measured = await metrics(api)
    async with idle_service.client(None) as stranger:
        public = (await stranger.get("/readyz")).json()
        public_metrics = (await stranger.get("/metrics")).text
    findings = {finding.check: finding for finding in await Doctor(idle_service.services.settings).run_checks()}

    warning = f"API key {soon.id} expires at {soon.expires_at:%Y-%m-%dT%H:%M:%SZ}. Replace it: run `keys create`."
    assert ready == {"status": "ok", "warning_count": 1, "warnings": [warning]}
    assert public == {"status": "ok", "warning_count": 1, "warnings": None}
    assert "faceid_expiring_api_keys 1.0" in public_metrics
    assert soon.id not in public_metrics
    assert measured == {(soon.id, "soon")}
    assert findings["API keys"].status is Status.WARNING
    assert findings["API keys"].found == f"soon ({soon.id}) of client shop expires on {soon.expires_at:%Y-%m-%d}."


async def test_report_ends_when_the_key_is_revoked(idle_service: Running) -> None:
    key, _ = await create(idle_service, DAY)
    async with idle_service.client(await idle_service.key(Scope.ADMIN)) as api:
        before = await metrics(api)
        await idle_service.services.api_keys.revoke(actor(), key.id)
        after = await metrics(api)

    assert (len(before), after) == (1, set())
    assert datetime.now(UTC) < key.expires_at
