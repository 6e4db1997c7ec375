"""The log is searched by the digest of a BizToken, and names the key of each request."""

import subprocess
from typing import Any

import httpx
import pytest
import structlog

from app.observability import digest_of
from tests.support.api import call_back, get, token, url
from tests.support.service import Running, everything


def lines_about(logs: list[Any], biz_token: str) -> list[tuple[object, ...]]:
    """Returns event, route and status of the lines about a token."""
    found = [entry for entry in logs if entry.get("token") == digest_of(biz_token)]
    return [(entry["event"], entry.get("route"), entry.get("status"), entry.get("step")) for entry in found]


async def test_token_is_found_in_the_lines_of_requests_and_calls(service: Running) -> None:
    async with service.client(await service.key(*everything())) as api:
        with structlog.testing.capture_logs() as logs:
            biz_token = await call_back(api, "http502-x1-failed-2016")
            await get(api, biz_token, wait=20)
            await api.put(url(biz_token), json={"rule_id": "9", "subject_ref": "loan-1"})
            await api.put(url(biz_token), json={"rule_id": "8"})

    of_one = "/v1/verifications/{biz_token}"
    assert lines_about(logs, biz_token)[:4] == [
        ("request", "/v1/callbacks", 202, None),
        ("called", None, None, "Retry"),
        ("retrieved", None, None, "Store"),
        ("request", of_one, 200, None),
    ]
    assert ("request", of_one, 409, None) in lines_about(logs, biz_token)
    assert biz_token not in repr(logs)


async def test_line_of_a_request_names_the_key(shared_service: Running) -> None:
    text = await shared_service.key(*everything())
    key_id = (await shared_service.services.api_keys.authenticate(text)).id
    with structlog.testing.capture_logs() as logs:
        async with shared_service.client(text) as api:
            for path in ("/v1/verifications", "/v1/audit"):
                await api.get(path)
        async with shared_service.client("unknown") as stranger:
            await stranger.get("/v1/verifications")

    assert [(entry["status"], entry.get("key_id")) for entry in logs if entry["event"] == "request"] == [
        (200, key_id),
        (403, key_id),
        (401, None),
    ]


@pytest.mark.parametrize(
    ("reported", "logged"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%000000199001011234", "fe80::1"),
        ("000000199001011234", None),
        ("x" * 10_000, None),
        ("", None),
    ],
)
async def test_line_of_a_request_has_the_address_of_the_client(
    shared_service: Running, reported: str, logged: str | None
) -> None:
    transport = httpx.ASGITransport(shared_service.app, client=(reported, 1))
    with structlog.testing.capture_logs() as logs:
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as stranger:
            await stranger.get("/v1/verifications")

    assert [entry.get("address") for entry in logs if entry["event"] == "request"] == [logged]


async def test_text_that_is_no_known_token_leaves_no_digest(shared_service: Running) -> None:
    mark = "000000199001011234"
    async with shared_service.client(await shared_service.key(*everything())) as api:
        with structlog.testing.capture_logs() as logs:
            await api.get(url(mark))
            await api.get(url(f"{mark}!"))
            await api.put(url(mark), json={"rule_id": "a b"})
            await api.post("/v1/callbacks", json={"BizToken": mark, "RuleId": "a b"})
    async with shared_service.client(None) as stranger:
        with structlog.testing.capture_logs() as more:
            await stranger.put(url(mark))

    assert [entry["status"] for entry in logs + more if entry["event"] == "request"] == [404, 422, 422, 422, 401]
    assert not [entry for entry in logs + more if "token" in entry]


def test_digest_can_be_computed_by_a_shell() -> None:
    biz_token = token()
    command = f'printf %s "{biz_token}" | sha256sum | cut -c1-16'

    found = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == digest_of(biz_token)
