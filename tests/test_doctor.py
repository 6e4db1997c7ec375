"""Findings and advice of the doctor, with working and broken databases, stores and endpoints."""

import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.config import Settings
from app.doctor import Doctor, Finding, Status, check_folder
from app.domain import pause
from app.domain.api_key import Scope
from app.domain.rule import DEFAULT_ACCOUNT
from app.domain.verification import Verification
from app.errors import ConfigurationError
from app.factory import open_services
from app.storage import schema
from app.storage.database import Database
from tests.support.api import retrieve_new
from tests.support.databases import fresh_database
from tests.support.doctor import DOCTOR_CHECKS, run_checks
from tests.support.oidc import providing
from tests.support.servers import S3
from tests.support.service import changed, everything, running, settings_for
from tests.support.simulator import LiveSimulator

NOWHERE = "http://127.0.0.1:1"
NOBODY = 65534


async def test_working_installation_has_ok_findings_only(settings: Settings) -> None:
    findings = await run_checks(settings)

    assert list(findings) == DOCTOR_CHECKS
    findings.pop("disk")  # depends on the machine
    assert {(finding.status, finding.advice) for finding in findings.values()} == {(Status.OK, None)}


async def test_provider_of_the_single_sign_on_is_checked_if_there_is_one(settings: Settings) -> None:
    async with providing() as provider:
        wanted = {"oidc_issuer": provider.url, "oidc_client_secret": SecretStr("x"), "oidc_admin_values": "admins"}
        finding = (await run_checks(changed(settings, **wanted)))["single sign-on"]
        useless = (await run_checks(changed(settings, **wanted | {"oidc_admin_values": ""})))["single sign-on"]
        provider.metadata = {"issuer": "https://other.test"}
        other = (await run_checks(changed(settings, **wanted)))["single sign-on"]
    gone = (await run_checks(changed(settings, **wanted)))["single sign-on"]

    assert finding == Finding(
        "single sign-on", Status.OK, "The provider answers, and its issuer is the configured one."
    )
    assert (useless.status, useless.found) == (Status.WARNING, "No role is configured, so no person may sign in.")
    assert (other.status, other.found) == (
        Status.FAILED,
        "The discovery document names another issuer than OIDC_ISSUER.",
    )
    assert (gone.status, gone.found) == (Status.FAILED, "The provider cannot be called: ConnectError.")
    assert gone.advice == "Check OIDC_ISSUER and OIDC_CA_FILE, and that this machine may call the provider."


async def test_call_of_the_doctor_uses_a_slot_of_a_shared_quota(settings: Settings, database: Database) -> None:
    await run_checks(changed(settings, faceid_requests_per_second=0.1))

    async with database.read() as tx:
        is_reserved = await tx.quota.wait(DEFAULT_ACCOUNT) > timedelta(seconds=1)
    assert is_reserved is not database.is_embedded


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Returns the time and content of every file below a folder."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *folder.rglob("*")]
    }


async def test_new_installation_is_checked_without_writing(tmp_path: Path, faceid: LiveSimulator) -> None:
    before = contents(tmp_path)

    findings = await run_checks(settings_for(tmp_path / "new" / "data", faceid.url))

    assert contents(tmp_path) == before
    assert {finding.status for finding in findings.values()} <= {Status.OK, Status.WARNING, Status.SKIPPED}
    assert findings["database"].found == (
        f"There is no database {tmp_path}/new/data/faceid-results.db yet. The first start creates it."
    )


async def test_stopped_installation_is_checked_without_writing(tmp_path: Path, faceid: LiveSimulator) -> None:
    settings = settings_for(tmp_path, faceid.url)
    async with running(settings) as service, service.client(await service.key(*everything())) as api:
        await retrieve_new(api)
    before = contents(tmp_path)

    findings = await run_checks(settings)

    assert contents(tmp_path) == before
    findings.pop("disk")
    assert {finding.status for finding in findings.values()} == {Status.OK}


async def test_running_installation_is_checked_without_writing(tmp_path: Path, faceid: LiveSimulator) -> None:
    settings = settings_for(tmp_path, faceid.url)
    async with running(settings, with_worker=False) as service:
        await service.key(*everything())
        before = contents(tmp_path)

        findings = await run_checks(settings)

        after = contents(tmp_path)
    # The lock table in shared memory counts its readers.
    assert {name: after[name] for name in after if not name.endswith("-shm")} == {
        name: before[name] for name in before if not name.endswith("-shm")
    }
    assert findings["key ring"].status is Status.OK


async def test_older_embedded_schema_is_left_to_the_next_start(tmp_path: Path, faceid: LiveSimulator) -> None:
    settings = settings_for(tmp_path, faceid.url)
    database = Database(settings.database)
    await schema.migrate(database, to="0008")
    await database.aclose()

    findings = await run_checks(settings)

    assert findings["schema"] == Finding(
        "schema", Status.SKIPPED, "The schema is older than this version. The next start migrates it."
    )
    assert findings["key ring"].status is Status.SKIPPED


async def test_newer_schema_is_a_failure(settings: Settings, database: Database) -> None:
    async with database.write() as tx:
        await tx.connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")

    finding = (await run_checks(settings))["schema"]

    assert (finding.status, finding.found) == (Status.FAILED, "The schema is newer than this version.")


@pytest.mark.parametrize("has_results", [False, True])
async def test_lost_key_ring_of_sealed_rows_is_never_replaced(settings: Settings, *, has_results: bool) -> None:
    async with running(settings, with_worker=False) as service, service.client(await service.key(Scope.ADMIN)) as api:
        if has_results:
            await api.post("/v1/callbacks", json={"BizToken": "sealed"})
    path = settings.keyring.keyring_path
    path.unlink()

    finding = (await run_checks(settings))["key ring"]
    with pytest.raises(ConfigurationError) as refused:
        async with open_services(settings):
            pass

    assert (finding.status, finding.advice) == (Status.FAILED, "Restore this database's key ring to KEYRING_FILE.")
    assert finding.found == refused.value.detail
    assert str(path) in finding.found
    assert "keyring new" not in finding.found
    assert not path.exists()


async def test_missing_first_key_ring_is_not_a_lost_one(settings: Settings, database: Database) -> None:
    settings.keyring.keyring_path.unlink()

    finding = (await run_checks(settings))["key ring"]

    expected = (
        (Status.OK, None) if database.is_embedded else (Status.FAILED, "Create it: `faceid-results keyring new`.")
    )
    assert (finding.status, finding.advice) == expected
    assert not settings.keyring.keyring_path.exists()


async def test_outdated_schema_advises_to_migrate(tmp_path: Path, postgres_server: str, faceid: LiveSimulator) -> None:
    async with fresh_database(postgres_server) as url:
        findings = await run_checks(settings_for(tmp_path, faceid.url, database_url=url))

    assert (findings["database"].status, findings["schema"].status) == (Status.OK, Status.FAILED)
    assert findings["schema"].advice == "Run `faceid-results migrate` of the version that will serve."
    assert findings["quota"].status is Status.SKIPPED
    assert findings["credentials"].status is Status.OK


async def test_unreachable_services_are_named_without_secrets(tmp_path: Path) -> None:
    settings = settings_for(
        tmp_path,
        NOWHERE,
        database_url="postgresql+asyncpg://user:s3cret@127.0.0.1:1/x",
        media_url="s3://bucket/prefix",
        aws_endpoint_url=NOWHERE,
        aws_access_key_id="key",
        aws_secret_access_key="s3cret",
    )

    findings = await run_checks(settings)

    findings.pop("disk")
    assert findings.pop("settings").status is Status.OK
    assert {name: finding.status for name, finding in findings.items()} == {
        "credentials": Status.FAILED,
        "clock": Status.FAILED,
        "connection": Status.OK,
        "database": Status.FAILED,
        "schema": Status.SKIPPED,
        "key ring": Status.SKIPPED,
        "quota": Status.SKIPPED,
        "retrieval": Status.SKIPPED,
        "API keys": Status.SKIPPED,
        "media owner": Status.SKIPPED,
        "media store": Status.FAILED,
    }
    assert [
        re.findall("FACEID_ENDPOINT|DATABASE_URL|MEDIA_URL", finding.advice or "") for finding in findings.values()
    ] == [
        ["FACEID_ENDPOINT"],
        ["FACEID_ENDPOINT"],
        [],
        ["DATABASE_URL"],
        [],
        [],
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
        ("faceid_ca_file", Path("/dev/null"), "credentials", "FACEID_CA_FILE, or the ca_file of an account, cannot be"),
        ("tencentcloud_secret_id", "", "credentials", "TENCENTCLOUD_SECRET_ID is not set"),
        ("data_dir", Path("/dev/null/data"), "disk", "DATA_DIR cannot be created: /dev/null is not a folder."),
        ("media_url", "file:///dev/null/media", "media store", "MEDIA_URL cannot be created"),
    ],
)
async def test_invalid_setting_is_a_finding(
    tmp_path: Path, setting: str, value: object, check: str, found: str
) -> None:
    settings = changed(settings_for(tmp_path, NOWHERE), **{setting: value})

    finding = (await run_checks(settings))[check]

    assert finding.status is Status.FAILED
    assert finding.found.startswith(found)


async def test_bucket_is_checked_with_an_object(tmp_path: Path, s3_server: S3, faceid: LiveSimulator) -> None:
    settings = settings_for(
        tmp_path,
        faceid.url,
        **s3_server.settings("doctor"),
    )

    assert (await run_checks(settings))["media store"] == Finding(
        "media store", Status.OK, "An object can be written to, read from and deleted in the bucket."
    )


@pytest.mark.parametrize(("least_bytes", "status"), [(1, Status.OK), (2**60, Status.WARNING)])
def test_too_little_free_space_is_a_warning(tmp_path: Path, least_bytes: int, status: Status) -> None:
    folder = tmp_path / "new" / "folder"

    finding = check_folder("DATA_DIR", folder, least_bytes)

    assert (finding.status, finding.found[:9]) == (status, "DATA_DIR ")
    assert not folder.parent.exists()


async def test_disk_check_covers_the_folders_in_use_and_no_others(tmp_path: Path, s3_server: S3) -> None:
    unused = Path("/dev/null/unused")
    shared = {"data_dir": unused, "database_url": SecretStr("postgresql+asyncpg://127.0.0.1:1/x")}
    bucket = s3_server.settings("disk")
    embedded = settings_for(tmp_path, NOWHERE, media_url=f"file://{tmp_path}/media")
    worker = changed(settings_for(tmp_path, NOWHERE, **bucket), **shared, spool_dir=tmp_path)
    api = changed(worker, spool_dir=unused)

    found = [
        re.sub(r"\d+\.\d", "1", (await Doctor(settings, with_worker=with_worker).run_checks())[-1].found)
        for settings, with_worker in ((embedded, True), (worker, True), (api, False))
    ]

    assert found == [
        "DATA_DIR has 1 GiB free.\nMEDIA_URL has 1 GiB free.",
        "SPOOL_DIR has 1 GiB free.",
        "This installation stores nothing in local folders.",
    ]


async def test_without_a_worker_nothing_of_tencent_is_needed(tmp_path: Path) -> None:
    settings = changed(settings_for(tmp_path, NOWHERE), tencentcloud_secret_id="")
    async with open_services(settings):
        pass

    findings = await Doctor(settings, with_worker=False).run_checks()

    assert {finding.check for finding in findings if finding.status is Status.SKIPPED} == {
        "credentials",
        "clock",
        "connection",
    }
    assert Status.FAILED not in {finding.status for finding in findings}


async def test_pauses_and_late_verifications_are_reported(settings: Settings, database: Database) -> None:
    now = datetime.now(UTC)
    paused = pause.begin("default", "404", "InvalidParameterValue.RuleIdNotExist", now)
    late = Verification(
        client="shop", biz_token="late", rule_id="1", due_at=now, received_at=now, deadline_at=now + timedelta(hours=1)
    )
    async with database.write() as tx:
        await tx.pauses.begin(paused)
        await tx.verifications.add_all([late])

    finding = (await run_checks(settings))["retrieval"]

    assert finding.status is Status.WARNING
    first, *others = finding.found.split("\n")
    assert first.startswith("RuleId 404 of account default is paused since 20")
    assert first.endswith("Use an enabled RuleId of https://console.cloud.tencent.com/faceid.")
    assert others == [
        "1 pending verifications have less than 24 h left.",
        "1 pending verifications have less than 6 h left.",
    ]


async def test_key_ring_that_others_may_read_is_a_failure(settings: Settings) -> None:
    async with open_services(settings):
        pass
    path = settings.keyring.keyring_path
    path.chmod(0o640)

    finding = (await run_checks(settings))["key ring"]

    assert (finding.status, finding.found) == (Status.FAILED, "Other users may read KEYRING_FILE.")
    assert finding.advice == f"Run `chmod 600 {path}`."


async def test_key_ring_of_an_earlier_version_is_to_be_rotated(settings: Settings) -> None:
    path = settings.keyring.keyring_path
    rings = json.loads(path.read_text())
    without_audit = {ring: versions for ring, versions in rings.items() if ring != "audit"}
    without_digests = rings | {"identity": [version | {"has_digests": False} for version in rings["identity"]]}
    for content in (without_audit, without_digests):
        path.write_text(json.dumps(content))

        finding = (await run_checks(settings))["key ring"]

        assert (finding.status, "keyring rotate" in (finding.advice or "")) == (Status.WARNING, True)


def test_folder_below_a_closed_one_is_a_finding(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    if is_root := os.geteuid() == 0:
        # Root may enter every folder.
        os.seteuid(NOBODY)
    else:
        closed.chmod(0)
    try:
        finding = check_folder("DATA_DIR", closed / "data", 0)
    finally:
        if is_root:
            os.seteuid(0)
        closed.chmod(0o700)

    assert (finding.status, finding.found[:19]) == (Status.FAILED, "DATA_DIR cannot be ")
