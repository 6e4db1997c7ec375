"""Findings of the doctor about Tencent: credentials and rules of each account, and the clock."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.doctor import Finding, Status, clock_finding, credentials_finding
from app.faceid.credentials import AccountSettings
from app.factory import open_services
from app.services.rule_settings import RuleSettings
from simulator.options import SimulatorOptions
from tests.support.doctor import run_checks
from tests.support.service import settings_for
from tests.support.simulator import LiveSimulator, live_simulator


@asynccontextmanager
async def endpoint_at(moment: datetime | None) -> AsyncIterator[str]:
    """Runs an HTTP server whose Date header has this time, or that sends none; yields its URL."""
    date = f"Date: {format_datetime(moment, usegmt=True)}\r\n" if moment else ""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 404 Not Found\r\n{date}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_clock_is_compared_with_the_endpoint(tmp_path: Path) -> None:
    async with endpoint_at(datetime.now(UTC) - timedelta(seconds=400)) as url:
        finding = (await run_checks(settings_for(tmp_path, url)))["clock"]

    assert finding.status is Status.FAILED
    assert re.fullmatch(r"This machine's clock differs from the endpoint's by \+(399|40\d) s\.", finding.found)


async def test_endpoint_without_a_date_is_a_failure(tmp_path: Path) -> None:
    async with endpoint_at(None) as url:
        finding = (await run_checks(settings_for(tmp_path, url)))["clock"]

    assert (finding.status, finding.found) == (Status.FAILED, "The endpoint's response has no valid Date header.")


async def test_expired_signature_advises_to_synchronise_the_clock(tmp_path: Path) -> None:
    with live_simulator(SimulatorOptions(clock=lambda: time.time() + 400)) as ahead:
        finding = (await run_checks(settings_for(tmp_path, ahead.url)))["credentials"]

    assert finding.status is Status.FAILED
    assert finding.found.startswith("The call ended with AuthFailure.SignatureExpire (RequestId ")
    assert (
        finding.advice
        == "Synchronise this machine's clock by NTP: Tencent rejects signatures that are more than 300 s off."
    )


@pytest.mark.parametrize("code", [None, "InvalidParameter", "InvalidParameterValue.BizTokenExpired"])
def test_error_about_the_token_means_that_the_credentials_are_valid(code: str | None) -> None:
    assert credentials_finding(code, "id", rule_id="1") == Finding(
        "credentials", Status.OK, "Tencent accepts the key pair and the RuleId."
    )


@pytest.mark.parametrize("code", ["InvalidParameter", "InvalidParameterValue.RuleIdNotExist"])
def test_missing_rule_id_is_a_warning(code: str) -> None:
    assert credentials_finding(code, "id", rule_id=None).status is Status.WARNING


@pytest.mark.parametrize(
    ("code", "status", "advice"),
    [
        ("AuthFailure.SecretIdNotFound", Status.FAILED, "TENCENTCLOUD_SECRET_ID"),
        ("AuthFailure.SignatureFailure", Status.FAILED, "TENCENTCLOUD_SECRET_KEY"),
        ("AuthFailure.TokenFailure", Status.FAILED, "TENCENTCLOUD_TOKEN"),
        ("AuthFailure.InvalidAuthorization", Status.FAILED, "cam/capi"),
        ("AuthFailure.UnauthorizedOperation", Status.FAILED, "faceid:GetDetectInfo"),
        ("UnauthorizedOperation", Status.FAILED, "faceid:GetDetectInfo"),
        ("UnauthorizedOperation.Arrears", Status.FAILED, "bill"),
        ("UnauthorizedOperation.Nonactivated", Status.FAILED, "Activate"),
        ("InvalidParameterValue.RuleIdNotExist", Status.FAILED, "Use an enabled RuleId"),
        ("InvalidParameterValue.RuleIdDisabled", Status.FAILED, "Use an enabled RuleId"),
        ("IpNotInWhitelist", Status.FAILED, "allow list"),
        ("network.timeout", Status.FAILED, "FACEID_ENDPOINT"),
        ("http.502", Status.FAILED, "FACEID_ENDPOINT"),
        ("reply.unreadable", Status.FAILED, "FACEID_ENDPOINT"),
        ("InternalError", Status.WARNING, "Try again"),
        ("RequestLimitExceeded", Status.WARNING, "Try again"),
    ],
)
def test_error_code_has_its_advice(code: str, status: Status, advice: str) -> None:
    finding = credentials_finding(code, "0f96cf39", rule_id="1")

    assert (finding.status, finding.found) == (status, f"The call ended with {code} (RequestId 0f96cf39).")
    assert advice in (finding.advice or "")


@pytest.mark.parametrize(
    ("seconds", "status"),
    [(0, Status.OK), (60, Status.OK), (-61, Status.WARNING), (300, Status.WARNING), (-301, Status.FAILED)],
)
def test_clock_may_be_off_by_one_minute_and_not_by_five(seconds: int, status: Status) -> None:
    assert clock_finding(timedelta(seconds=seconds)).status is status


async def test_each_account_is_checked_with_its_own_rule(tmp_path: Path, faceid: LiveSimulator) -> None:
    bank = AccountSettings(secret_id="AKIDNOBODY", secret_key=SecretStr("key"), endpoint=faceid.url)
    empty = AccountSettings(endpoint=faceid.url)
    settings = settings_for(
        tmp_path, faceid.url, accounts={"bank": bank, "empty": empty}, rules={"7": RuleSettings(account="bank")}
    )
    async with open_services(settings):
        pass

    findings = await run_checks(settings)

    seen = {name: (finding.status, finding.found) for name, finding in findings.items() if "credentials" in name}
    assert {name: status for name, (status, _) in seen.items()} == {
        "credentials": Status.OK,
        "credentials of bank": Status.FAILED,
        "credentials of empty": Status.FAILED,
    }
    assert seen["credentials of bank"][1].startswith("The call ended with AuthFailure.SecretIdNotFound")
    assert seen["credentials of empty"][1].startswith("ACCOUNTS.EMPTY has no secret_id")
    assert findings["clock of bank"].status is Status.OK
    assert findings["quota"].found.startswith("default: 1000 calls per second")
