"""What the doctor finds, and what it advises; at real databases, stores and endpoints, good ones and bad ones."""

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

from app.config import Settings
from app.domain import pause
from app.domain.rule import DEFAULT_ACCOUNT
from app.domain.verification import Verification
from app.faceid.credentials import AccountSettings
from app.services.doctor import (
    LEAST_FREE_BYTES,
    DoctorService,
    Finding,
    Status,
    clock_finding,
    credentials_finding,
    disk_finding,
)
from app.services.rules import RuleSettings
from app.storage.database import Database
from app.storage.pauses import PauseStore
from app.storage.quota import QuotaStore
from app.storage.verifications import VerificationStore
from simulator.options import SimulatorOptions
from tests.support.databases import fresh_database
from tests.support.servers import S3
from tests.support.service import settings_for
from tests.support.simulator import LiveSimulator, live_simulator

NOWHERE = "http://127.0.0.1:1"
CHECKS = ["credentials", "clock", "database", "schema", "key ring", "quota", "retrieval", "media store", "disk"]


async def examine(settings: Settings) -> dict[str, Finding]:
    doctor = DoctorService(
        faceid=settings, receive=settings, rules=settings, database=settings, media=settings, keyring=settings
    )
    return {finding.check: finding for finding in await doctor.examine()}


async def test_a_good_installation_is_all_right_on_both_databases(settings: Settings) -> None:
    findings = await examine(settings)

    assert list(findings) == CHECKS
    findings.pop("disk")  # is the machine's, not ours
    assert {(finding.status, finding.advice) for finding in findings.values()} == {(Status.OK, None)}


async def test_the_one_call_takes_its_slot_of_the_quota(settings: Settings, database: Database) -> None:
    await examine(settings.model_copy(update={"faceid_requests_per_second": 0.1}))

    async with database.read() as tx:
        assert await QuotaStore().wait(tx, DEFAULT_ACCOUNT) > timedelta(seconds=1)


async def test_an_embedded_database_is_made(tmp_path: Path, faceid: LiveSimulator) -> None:
    findings = await examine(settings_for(tmp_path / "new" / "data", faceid.url))

    assert findings["schema"].status is Status.OK
    assert (tmp_path / "new" / "data" / "faceid-results.db").exists()


async def test_a_schema_that_is_behind_wants_migrate(
    tmp_path: Path, postgres_server: str, faceid: LiveSimulator
) -> None:
    async with fresh_database(postgres_server) as url:
        findings = await examine(settings_for(tmp_path, faceid.url, database_url=url))

    assert (findings["database"].status, findings["schema"].status) == (Status.OK, Status.FAILED)
    assert findings["schema"].advice == "Run `faceid-results migrate` of the version that is to serve."
    assert findings["quota"].status is Status.SKIPPED
    assert findings["credentials"].status is Status.OK


async def test_what_cannot_be_reached_is_named_and_nothing_secret_is(tmp_path: Path) -> None:
    settings = settings_for(
        tmp_path,
        NOWHERE,
        database_url="postgresql+asyncpg://user:s3cret@127.0.0.1:1/x",
        media_url="s3://bucket/prefix",
        aws_endpoint_url=NOWHERE,
        aws_access_key_id="key",
        aws_secret_access_key="s3cret",
    )

    findings = await examine(settings)

    findings.pop("disk")
    assert {name: finding.status for name, finding in findings.items()} == {
        "credentials": Status.FAILED,
        "clock": Status.FAILED,
        "database": Status.FAILED,
        "schema": Status.SKIPPED,
        "key ring": Status.SKIPPED,
        "quota": Status.SKIPPED,
        "retrieval": Status.SKIPPED,
        "media store": Status.FAILED,
    }
    assert [
        re.findall("FACEID_ENDPOINT|DATABASE_URL|MEDIA_URL", finding.advice or "") for finding in findings.values()
    ] == [
        ["FACEID_ENDPOINT"],
        ["FACEID_ENDPOINT"],
        ["DATABASE_URL"],
        [],
        [],
        [],
        [],
        ["MEDIA_URL"],
    ]
    assert "s3cret" not in repr(findings)


@pytest.mark.parametrize(
    ("setting", "value", "check", "found"),
    [
        ("database_url", SecretStr("mysql://x"), "database", "DATABASE_URL must begin with"),
        ("faceid_endpoint", "ftp://x", "credentials", "FACEID_ENDPOINT must be"),
        ("faceid_endpoint", "ftp://x", "clock", "FACEID_ENDPOINT must be"),
        ("tencentcloud_secret_id", "", "credentials", "TENCENTCLOUD_SECRET_ID is not set"),
        ("data_dir", Path("/dev/null/data"), "disk", "DATA_DIR cannot be made: Not a directory."),
        ("media_url", "file:///dev/null/media", "media store", "The media folder cannot be made"),
    ],
)
async def test_a_setting_that_cannot_work_is_a_finding(
    tmp_path: Path, setting: str, value: object, check: str, found: str
) -> None:
    settings = settings_for(tmp_path, NOWHERE).model_copy(update={setting: value})

    finding = (await examine(settings))[check]

    assert finding.status is Status.FAILED
    assert finding.found.startswith(found)


async def test_media_in_a_bucket_are_examined_there(tmp_path: Path, s3_server: S3, faceid: LiveSimulator) -> None:
    settings = settings_for(
        tmp_path,
        faceid.url,
        media_url=f"s3://{s3_server.bucket}/doctor",
        aws_endpoint_url=s3_server.endpoint,
        aws_access_key_id=s3_server.access_key_id,
        aws_secret_access_key=s3_server.secret_access_key,
    )

    assert (await examine(settings))["media store"] == Finding(
        "media store", Status.OK, "The bucket takes, gives and removes an object."
    )


async def test_tencents_clock_decides_whether_ours_is_right(tmp_path: Path) -> None:
    async with endpoint_at(datetime.now(UTC) - timedelta(seconds=400)) as url:
        finding = (await examine(settings_for(tmp_path, url)))["clock"]

    assert finding.status is Status.FAILED
    assert re.fullmatch(r"This machine is \+(399|40\d) s off the endpoint's clock\.", finding.found)


async def test_an_endpoint_without_a_date_cannot_be_judged_by(tmp_path: Path) -> None:
    async with endpoint_at(None) as url:
        finding = (await examine(settings_for(tmp_path, url)))["clock"]

    assert (finding.status, finding.found) == (Status.FAILED, "The endpoint's response has no valid Date header.")


async def test_signatures_that_are_too_old_are_the_clocks_fault(tmp_path: Path) -> None:
    with live_simulator(SimulatorOptions(clock=lambda: time.time() + 400)) as ahead:
        finding = (await examine(settings_for(tmp_path, ahead.url)))["credentials"]

    assert finding.status is Status.FAILED
    assert finding.found.startswith("The call ended with AuthFailure.SignatureExpire (RequestId ")
    assert (
        finding.advice
        == "Synchronise this machine's clock by NTP: Tencent rejects signatures that are more than 300 s off."
    )


@pytest.mark.parametrize("code", [None, "InvalidParameter", "InvalidParameterValue.BizTokenExpired"])
def test_a_call_that_only_lacks_its_token_was_let_in(code: str | None) -> None:
    assert credentials_finding(code, "id", rule_id="1") == Finding(
        "credentials", Status.OK, "Tencent accepts the key pair and the RuleId."
    )


@pytest.mark.parametrize("code", ["InvalidParameter", "InvalidParameterValue.RuleIdNotExist"])
def test_a_rule_that_nobody_set_is_a_warning(code: str) -> None:
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
def test_every_refusal_has_its_advice(code: str, status: Status, advice: str) -> None:
    finding = credentials_finding(code, "0f96cf39", rule_id="1")

    assert (finding.status, finding.found) == (status, f"The call ended with {code} (RequestId 0f96cf39).")
    assert advice in (finding.advice or "")


@pytest.mark.parametrize(
    ("seconds", "status"),
    [(0, Status.OK), (60, Status.OK), (-61, Status.WARNING), (300, Status.WARNING), (-301, Status.FAILED)],
)
def test_a_clock_may_be_a_minute_off_and_must_not_be_five(seconds: int, status: Status) -> None:
    assert clock_finding(timedelta(seconds=seconds)).status is status


@pytest.mark.parametrize(
    ("free_bytes", "status"), [(LEAST_FREE_BYTES, Status.OK), (LEAST_FREE_BYTES - 1, Status.WARNING)]
)
def test_less_than_a_gibibyte_is_a_warning(free_bytes: int, status: Status) -> None:
    assert disk_finding(free_bytes).status is status


@asynccontextmanager
async def endpoint_at(moment: datetime | None) -> AsyncIterator[str]:
    """An HTTP server whose clock stands at that moment, or that does not tell the time."""
    date = f"Date: {format_datetime(moment, usegmt=True)}\r\n" if moment else ""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 404 Not Found\r\n{date}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_every_account_is_examined_with_a_rule_of_its_own(tmp_path: Path, faceid: LiveSimulator) -> None:
    bank = AccountSettings(secret_id="AKIDNOBODY", secret_key=SecretStr("key"), endpoint=faceid.url)
    empty = AccountSettings(endpoint=faceid.url)
    settings = settings_for(
        tmp_path, faceid.url, accounts={"bank": bank, "empty": empty}, rules={"7": RuleSettings(account="bank")}
    )

    findings = await examine(settings)

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


async def test_what_is_paused_and_what_is_late_is_told(settings: Settings, database: Database) -> None:
    now = datetime.now(UTC)
    paused = pause.begin("default", "404", "InvalidParameterValue.RuleIdNotExist", now)
    late = Verification(
        client="shop", biz_token="late", rule_id="1", due_at=now, received_at=now, deadline_at=now + timedelta(hours=1)
    )
    async with database.write() as tx:
        await PauseStore().begin(tx, paused)
        await VerificationStore().add(tx, late)

    finding = (await examine(settings))["retrieval"]

    assert finding.status is Status.WARNING
    first, *others = finding.found.split("\n")
    assert first.startswith("RuleId 404 of account default is paused since 20")
    assert first.endswith("Use an enabled RuleId of https://console.cloud.tencent.com/faceid.")
    assert others == [
        "1 pending verifications have less than 24 h left.",
        "1 pending verifications have less than 6 h left.",
    ]
