"""Examines an installation: whether all that it needs is there and lets us in, and what to do where not."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from io import BytesIO
from pathlib import Path

from app.domain.decision import ErrorClass
from app.domain.detection import InfoType
from app.domain.rule import DEFAULT_ACCOUNT
from app.errors import ServiceError, SetUpError
from app.faceid.client import FaceIdClient, clock_offset
from app.faceid.credentials import CredentialSource, FaceIdSettings
from app.faceid.error_codes import CLOCK, ENDPOINT, KEY_PAIR, advice, classify
from app.sealing.keyring import KeyringSettings, Ring
from app.services.health import HealthService
from app.services.receive import ReceiveSettings
from app.services.rules import RulesSettings
from app.services.vault import open_keyring
from app.storage import schema
from app.storage.database import Database, DatabaseSettings
from app.storage.media import MediaSettings, open_media_store
from app.storage.pauses import PauseStore
from app.storage.quota import QuotaStore
from app.storage.results import ResultStore
from app.storage.verifications import VerificationStore

LEAST_FREE_BYTES = 2**30  # some hundred results with their videos
CLOCK_WARNING = timedelta(seconds=60)
CLOCK_LIMIT = timedelta(seconds=300)  # Tencent refuses signatures beyond
_CHECK_SECONDS = 45.0  # above the deadlines of what is examined: their errors say more
_NOBODY = "illegal-faceid-results-doctor"  # nobody's, at Tencent as at the simulator


class Status(StrEnum):
    """How a check went; a warning is no trouble yet."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found; `advice` says what to do about it, None where that is nothing."""

    check: str
    status: Status
    found: str
    advice: str | None = None


class DoctorService:
    """Examines once. It needs no open store: that one cannot be opened is a finding."""

    def __init__(
        self,
        *,
        faceid: FaceIdSettings,
        receive: ReceiveSettings,
        rules: RulesSettings,
        database: DatabaseSettings,
        media: MediaSettings,
        keyring: KeyringSettings,
    ) -> None:
        self._faceid = faceid
        self._rule_ids = {rule.account: rule_id for rule_id, rule in rules.rules.items()}
        if receive.faceid_rule_id:
            self._rule_ids[rules.rule(receive.faceid_rule_id).account] = receive.faceid_rule_id
        self._database = database
        self._media = media
        self._keyring = keyring
        self._slots: dict[str, float] = {}  # of each account's one call to Tencent, by `time.monotonic`

    async def examine(self) -> Sequence[Finding]:
        """All findings; never raises for what it finds. The embedded database is made as `serve` makes it."""
        data_dir = _examine_folder(self._database.data_dir)
        media = asyncio.create_task(_guarded("media store", _MEDIA_ADVICE, self._examine_media()))
        stores = await self._examine_database()
        accounts = [finding for name in self._faceid.all_accounts for finding in await self._examine_account(name)]
        return [*accounts, *stores, await media, data_dir]

    async def _examine_account(self, name: str) -> Sequence[Finding]:
        account, suffix = self._faceid.all_accounts[name], "" if name == DEFAULT_ACCOUNT else f" of {name}"
        return [
            await _guarded(f"credentials{suffix}", ENDPOINT, self._examine_credentials(name)),
            await _guarded(f"clock{suffix}", ENDPOINT, self._examine_clock(account.endpoint)),
        ]

    async def _examine_database(self) -> Sequence[Finding]:
        findings = [await _guarded("database", _DATABASE_ADVICE, self._reach_database())]
        for check, todo, work in (
            ("schema", "Run `faceid-results migrate` of the version that is to serve.", self._require_schema),
            ("key ring", _KEYRING_ADVICE, self._examine_keyring),
            ("quota", "Check that the user of DATABASE_URL may write to all tables.", self._reserve_slots),
            ("retrieval", _DATABASE_ADVICE, self._examine_retrieval),
        ):
            if findings[-1].status is not Status.OK:
                findings.append(Finding(check, Status.SKIPPED, "It cannot be examined without the check before it."))
            else:
                findings.append(await _guarded(check, todo, work()))
        return findings

    async def _reach_database(self) -> Finding:
        async with self._opened_database() as database, database.read():
            return Finding("database", Status.OK, f"The {database.dialect} database answers.")

    async def _require_schema(self) -> Finding:
        async with self._opened_database() as database:
            if database.is_embedded:
                await schema.migrate(database)
            elif not await schema.is_current(database):
                raise SetUpError("The schema is not the one of this version.")
        return Finding("schema", Status.OK, "The schema is the one of this version.")

    async def _examine_keyring(self) -> Finding:
        async with self._opened_database() as database:
            keyring = await open_keyring(self._keyring.keyring_path, database)
        versions = ", ".join(f"{ring} {keyring.newest(ring)}" for ring in Ring)
        found = f"The key ring opens what the database has sealed; newest versions: {versions}."
        if keyring.is_open_to_others:
            return Finding("key ring", Status.WARNING, f"{found} Others may read its file.", "chmod 0600 KEYRING_FILE.")
        return Finding("key ring", Status.OK, found)

    async def _reserve_slots(self) -> Finding:
        found = []
        for name, account in self._faceid.all_accounts.items():
            interval = timedelta(seconds=1 / account.requests_per_second)
            async with self._opened_database() as database, database.write() as tx:
                self._slots[name] = await QuotaStore().reserve(tx, name, interval=interval, slots=1)
            wait = max(self._slots[name] - time.monotonic(), 0)
            found.append(f"{name}: {account.requests_per_second:g} calls per second, the next one in {wait:.1f} s.")
        return Finding("quota", Status.OK, "\n".join(found))

    async def _examine_retrieval(self) -> Finding:
        async with self._opened_database() as database:
            health = HealthService(
                database=database,
                verifications=VerificationStore(),
                pauses=PauseStore(),
                results=ResultStore(),
                clock=lambda: datetime.now(UTC),
            )
            warnings = (await health.look()).warnings
        if warnings:
            return Finding("retrieval", Status.WARNING, "\n".join(warnings))
        return Finding("retrieval", Status.OK, "No account is paused, and no deadline is near.")

    async def _examine_media(self) -> Finding:
        async with aclosing(open_media_store(self._media)) as store:
            await store.check()
        kind = "bucket" if self._media.media_location.scheme == "s3" else "folder"
        return Finding("media store", Status.OK, f"The {kind} takes, gives and removes an object.")

    async def _examine_clock(self, endpoint: str) -> Finding:
        return clock_finding(await clock_offset(endpoint))

    async def _examine_credentials(self, account: str) -> Finding:
        rule_id = self._rule_ids.get(account)
        try:
            CredentialSource(account, self._faceid.all_accounts[account])
        except SetUpError as error:
            return Finding("credentials", Status.FAILED, error.detail, KEY_PAIR)
        async with FaceIdClient(self._faceid, account, connections=1) as client:
            await asyncio.sleep(max(self._slots.get(account, 0) - time.monotonic(), 0))
            fetched = await client.get_detect_info(
                biz_token=_NOBODY, rule_id=rule_id or "1", info_type=InfoType("1"), open_sink=BytesIO
            )
        return credentials_finding(fetched.call.error_code, fetched.call.request_id, rule_id=rule_id)

    @asynccontextmanager
    async def _opened_database(self) -> AsyncIterator[Database]:
        async with aclosing(Database(self._database)) as database:
            yield database


def credentials_finding(error_code: str | None, request_id: str | None, *, rule_id: str | None) -> Finding:
    """What Tencent's answer to a call for a token that does not exist says of the key pair and the rule."""
    error_code = error_code or ""
    is_in = not error_code or classify(error_code) in {ErrorClass.FINAL, ErrorClass.EXPIRED}
    if rule_id is None and (is_in or error_code.startswith("InvalidParameterValue.RuleId")):
        found = "Tencent accepts the key pair; no RuleId is known of the account."
        todo = "Set FACEID_RULE_ID or name rules, unless all registrations and callbacks name their RuleId."
        return Finding("credentials", Status.WARNING, found, todo)
    if is_in:
        return Finding("credentials", Status.OK, "Tencent accepts the key pair and the RuleId.")
    found = f"The call ended with {error_code} (RequestId {request_id or 'none'})."
    if (known := advice(error_code)) is None:
        return Finding("credentials", Status.WARNING, found, "Try again; if it stays, ask Tencent with the RequestId.")
    return Finding("credentials", Status.FAILED, found, known)


def clock_finding(offset: timedelta) -> Finding:
    """What the distance of the clocks, ours minus Tencent's, means."""
    status = Status.FAILED if abs(offset) > CLOCK_LIMIT else Status.WARNING
    found = f"This machine is {offset.total_seconds():+.0f} s off the endpoint's clock."
    if abs(offset) <= CLOCK_WARNING:
        return Finding("clock", Status.OK, found)
    return Finding("clock", status, found, CLOCK)


def disk_finding(free_bytes: int) -> Finding:
    """What the free space below DATA_DIR means."""
    found = f"DATA_DIR has {free_bytes / 2**30:.1f} GiB free."
    if free_bytes >= LEAST_FREE_BYTES:
        return Finding("disk", Status.OK, found)
    return Finding("disk", Status.WARNING, found, "Free some space, or move DATA_DIR or MEDIA_URL to a larger place.")


def _examine_folder(data_dir: Path) -> Finding:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(data_dir).free
    except OSError as error:
        return Finding("disk", Status.FAILED, f"DATA_DIR cannot be made: {error.strerror}.", _DATA_DIR_ADVICE)
    if not os.access(data_dir, os.W_OK | os.X_OK):
        return Finding("disk", Status.FAILED, "DATA_DIR cannot be written.", _DATA_DIR_ADVICE)
    return disk_finding(free_bytes)


async def _guarded(check: str, advice: str, work: Awaitable[Finding]) -> Finding:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            return replace(await work, check=check)
    except ServiceError as error:
        return Finding(check, Status.FAILED, error.detail, advice)
    except TimeoutError:
        return Finding(check, Status.FAILED, f"There was no answer within {_CHECK_SECONDS:.0f} s.", advice)


_DATABASE_ADVICE = (
    "Check DATABASE_URL and that its server runs and lets us in; for SQLite, that its folder is writable."
)
_KEYRING_ADVICE = (
    "Put this database's key ring back to KEYRING_FILE, or make a first one: `faceid-results keyring new`."
)
_MEDIA_ADVICE = "Check MEDIA_URL and that we may write there; for a bucket also AWS_ENDPOINT_URL and the AWS key pair."
_DATA_DIR_ADVICE = "Set DATA_DIR to a folder that this user may write to."
