"""Diagnoses an installation: checks everything that it needs, and says what to do about each failure."""

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from io import BytesIO
from pathlib import Path

from app.config import Settings, misspelt_variables
from app.domain.api_key import EXPIRY_WARNING
from app.domain.decision import ErrorClass
from app.domain.detection import InfoType
from app.domain.rule import DEFAULT_ACCOUNT
from app.errors import ConfigurationError, ServiceError, UnavailableError
from app.faceid.client import FaceIdClient, server_time
from app.faceid.credentials import AccountSettings, CredentialSource
from app.faceid.error_codes import CLOCK, ENDPOINT, KEY_PAIR, advice, classify
from app.factory import has_sealed_rows, open_keyring
from app.oidc.client import OidcClient
from app.oidc.settings import OidcSettings
from app.sealing.keyring import Ring, is_open_to_others
from app.services.clock import now
from app.services.health import HealthService
from app.services.media_guard import ADOPT, FOREIGN_STORE
from app.storage import schema
from app.storage.database import Database
from app.storage.media import open_media_store

MIN_FREE_BYTES = 2**30
"""For the database and stored media: room for some hundred results with their videos."""

MIN_FREE_SPOOL_BYTES = 2**24
"""For the spool, per concurrent call: room for one result with its video."""

CLOCK_WARNING = timedelta(seconds=60)
CLOCK_LIMIT = timedelta(seconds=300)
"""Tencent rejects signatures that are further off."""

# Above the deadlines of the checked parts, whose errors say more.
_CHECK_SECONDS = 45.0
# No such token exists, neither at Tencent nor at the simulator.
_UNKNOWN = "illegal-faceid-results-doctor"

_DATABASE_ADVICE = (
    "Check DATABASE_URL, and that its server runs and accepts this user; for SQLite, that its folder is writable."
)
_SCHEMA_ADVICE = "Run `faceid-results migrate` of the version that will serve."
_KEYRING_ADVICE = "Restore this database's key ring to KEYRING_FILE."
_QUOTA_ADVICE = "Check that the user of DATABASE_URL may write to all tables."
_MEDIA_ADVICE = "Check MEDIA_URL and its permissions; for a bucket also AWS_ENDPOINT_URL and the AWS key pair."
_PROVIDER_ADVICE = "Check OIDC_ISSUER and OIDC_CA_FILE, and that this machine may call the provider."
_DISK_ADVICE = "Set it to a folder that this user may write to."


class Status(StrEnum):
    """The result of a check. A warning needs attention but prevents nothing yet."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check. `advice` says how to fix a problem; None if there is none."""

    check: str
    status: Status
    found: str
    advice: str | None = None


class Doctor:
    """Checks an installation once. That a store cannot be opened is a finding, not an error.

    Without a worker it skips what only workers need: Tencent and the spool.
    """

    def __init__(self, settings: Settings, *, with_worker: bool = True) -> None:
        self._settings = settings
        self._with_worker = with_worker
        self._accounts = settings.faceid.all_accounts
        # When the one call to Tencent of each account may be made, by `time.monotonic`.
        self._slots: dict[str, float] = {}

    async def run_checks(self) -> Sequence[Finding]:
        """Runs all checks and returns what they found. Writes nothing to disk."""
        disk = self._check_disk()
        media = asyncio.create_task(_guarded("media store", _MEDIA_ADVICE, self._check_media()))
        stores = await self._check_database()
        accounts = [finding for name in self._accounts for finding in await self._check_account(name)]
        return [_check_variables(), *accounts, *stores, await media, disk, *await self._check_single_sign_on()]

    async def _check_account(self, name: str) -> Sequence[Finding]:
        suffix = "" if name == DEFAULT_ACCOUNT else f" of {name}"
        if not self._with_worker:
            checks = f"credentials{suffix}", f"clock{suffix}", f"connection{suffix}"
            return [Finding(check, Status.SKIPPED, "Not checked: only workers call Tencent.") for check in checks]
        return [
            await _guarded(f"credentials{suffix}", ENDPOINT, self._check_credentials(name)),
            await _guarded(f"clock{suffix}", ENDPOINT, self._check_clock(self._accounts[name])),
            Finding(f"connection{suffix}", Status.OK, self._accounts[name].route),
        ]

    async def _check_database(self) -> Sequence[Finding]:
        """Runs the checks of the database. Each needs the one before it."""
        checks: Sequence[tuple[str, str, Callable[[Database], Awaitable[Finding]]]] = (
            ("database", _DATABASE_ADVICE, _check_connection),
            ("schema", _SCHEMA_ADVICE, _check_schema),
            ("key ring", _KEYRING_ADVICE, self._check_keyring),
            ("quota", _QUOTA_ADVICE, self._check_quota),
            ("retrieval", _DATABASE_ADVICE, _check_retrieval),
            ("API keys", _DATABASE_ADVICE, _check_api_keys),
            ("media owner", _MEDIA_ADVICE, self._check_owner),
        )
        try:
            database = Database(self._settings.database, is_read_only=True)
        except ConfigurationError as error:
            failed = Finding("database", Status.FAILED, error.detail, _DATABASE_ADVICE)
            return [failed, *(_skipped(check) for check, _, _ in checks[1:])]
        if _is_missing(database):
            found = f"There is no database {database.place} yet. The first start creates it."
            return [Finding("database", Status.OK, found), *(_skipped(check) for check, _, _ in checks[1:])]
        findings: list[Finding] = []
        async with aclosing(database):
            for check, todo, run in checks:
                is_possible = not findings or findings[-1].status in {Status.OK, Status.WARNING}
                findings.append(await _guarded(check, todo, run(database)) if is_possible else _skipped(check))
        return findings

    async def _check_keyring(self, database: Database) -> Finding:
        path = self._settings.keyring.keyring_path
        if not path.exists() and not await has_sealed_rows(database):
            found = f"There is no key ring {path} yet."
            if database.is_embedded:
                return Finding("key ring", Status.OK, f"{found} The first start creates it.")
            return Finding("key ring", Status.FAILED, found, "Create it: `faceid-results keyring new`.")
        if path.exists() and is_open_to_others(path):
            return Finding("key ring", Status.FAILED, "Other users may read KEYRING_FILE.", f"Run `chmod 600 {path}`.")
        keyring = await open_keyring(path, database)
        versions = ", ".join(f"{ring} {keyring.newest(ring)}" for ring in Ring)
        found = f"The key ring decrypts the database; newest versions: {versions}."
        if keyring.is_outdated:
            found = f"{found} An earlier version created it: results are not bound together, or the audit has no key."
            todo = "Run `faceid-results keyring rotate` once all processes are of this version."
            return Finding("key ring", Status.WARNING, found, todo)
        return Finding("key ring", Status.OK, found)

    async def _check_quota(self, database: Database) -> Finding:
        found = []
        for name, account in self._accounts.items():
            self._slots[name] = await self._find_slot(database, name)
            wait = max(self._slots[name] - time.monotonic(), 0)
            found.append(f"{name}: {account.requests_per_second:g} calls per second, the next one in {wait:.1f} s.")
        return Finding("quota", Status.OK, "\n".join(found))

    async def _find_slot(self, database: Database, account: str) -> float:
        """Reserves a slot of the quota. An embedded database is not written: Tencent allows four more calls."""
        if database.is_embedded:
            async with database.read() as tx:
                return time.monotonic() + (await tx.quota.wait(account)).total_seconds()
        interval = timedelta(seconds=1 / self._accounts[account].requests_per_second)
        async with database.write() as tx:
            return await tx.quota.reserve(account, interval=interval, slots=1)

    async def _check_media(self) -> Finding:
        media = self._settings.media
        if media.media_location.scheme != "s3":
            folder = check_folder("MEDIA_URL" if media.media_url else "DATA_DIR", media.media_folder, 0)
            found = f"Objects can be written to the folder {media.media_folder}."
            return replace(folder, found=found) if folder.status is Status.OK else folder
        async with aclosing(open_media_store(media)) as store:
            if not self._with_worker:
                await store.owner()
                return Finding("media store", Status.OK, "The bucket can be read. Only workers write to it.")
            await store.check()
        return Finding("media store", Status.OK, "An object can be written to, read from and deleted in the bucket.")

    async def _check_owner(self, database: Database) -> Finding:
        """Checks that the media store belongs to the database, which removes the objects that it does not know."""
        async with database.read() as tx:
            installation = await tx.installation.find()
        async with aclosing(open_media_store(self._settings.media)) as store:
            owner = await store.owner()
        if owner is None:
            return Finding("media owner", Status.OK, "The media store has no owner yet. The first start takes it over.")
        if installation is None or installation.database_id != owner:
            return Finding("media owner", Status.FAILED, FOREIGN_STORE, ADOPT)
        return Finding("media owner", Status.OK, "The media store belongs to this database.")

    async def _check_single_sign_on(self) -> Sequence[Finding]:
        """Checks the provider of the single sign-on, if there is one: its description, its issuer and its keys."""
        if self._settings.oidc.oidc_issuer is None:
            return []
        return [await _guarded("single sign-on", _PROVIDER_ADVICE, _check_provider(self._settings.oidc))]

    def _check_disk(self) -> Finding:
        """Checks the folders that this installation writes to."""
        media, process = self._settings.media, self._settings.process
        findings: dict[str, Finding] = {}
        with suppress(ConfigurationError):
            url = self._settings.database.url()
            if url.get_backend_name() == "sqlite":
                name = "DATABASE_URL" if self._settings.database.database_url else "DATA_DIR"
                findings[name] = check_folder(name, Path(url.database or "").parent, MIN_FREE_BYTES)
        if media.media_location.scheme != "s3":
            name = "MEDIA_URL" if media.media_url else "DATA_DIR"
            findings[name] = check_folder(name, media.media_folder, MIN_FREE_BYTES)
        elif self._with_worker:
            least = MIN_FREE_SPOOL_BYTES * process.worker_concurrency
            findings["SPOOL_DIR"] = check_folder("SPOOL_DIR", media.media_spool, least)
        if not findings:
            return Finding("disk", Status.OK, "This installation stores nothing in local folders.")
        worst = max(findings.values(), key=lambda finding: list(Status).index(finding.status))
        return replace(worst, found="\n".join(finding.found for finding in findings.values()))

    async def _check_clock(self, account: AccountSettings) -> Finding:
        theirs = await server_time(account)
        return clock_finding(now() - theirs)

    async def _check_credentials(self, account: str) -> Finding:
        rule_id = self._rule_id(account)
        try:
            CredentialSource(account, self._accounts[account])
        except ConfigurationError as error:
            return Finding("credentials", Status.FAILED, error.detail, KEY_PAIR)
        async with FaceIdClient(self._settings.faceid, account, connections=1) as client:
            await asyncio.sleep(max(self._slots.get(account, 0) - time.monotonic(), 0))
            fetched = await client.get_detect_info(
                biz_token=_UNKNOWN, rule_id=rule_id or "1", info_type=InfoType("1"), open_sink=BytesIO
            )
        return credentials_finding(fetched.call.error_code, fetched.call.request_id, rule_id=rule_id)

    def _rule_id(self, account: str) -> str | None:
        """Returns a RuleId of the account, the default one if it belongs to it."""
        rules = self._settings.rules
        return next((rule_id for rule_id in rules.known_rule_ids if rules.rule(rule_id).account == account), None)


def _is_missing(database: Database) -> bool:
    return database.is_embedded and not Path(database.place).exists()


def _check_variables() -> Finding:
    misspelt = misspelt_variables()
    if not misspelt:
        return Finding("settings", Status.OK, "No variable resembles a setting.")
    found = "\n".join(f"{name} is not a setting; the nearest name is {nearest}." for name, nearest in misspelt.items())
    return Finding("settings", Status.WARNING, found, "Correct the name, or remove the variable.")


def _skipped(check: str) -> Finding:
    return Finding(check, Status.SKIPPED, "Not checked: it needs the check before it.")


async def _check_provider(oidc: OidcSettings) -> Finding:
    await OidcClient(oidc).check()
    if not oidc.roles:
        todo = "Set OIDC_ADMIN_VALUES, or [oidc_roles] in faceid-results.toml."
        return Finding("single sign-on", Status.WARNING, "No role is configured, so no person may sign in.", todo)
    return Finding("single sign-on", Status.OK, "The provider answers, and its issuer is the configured one.")


async def _check_connection(database: Database) -> Finding:
    async with database.read():
        return Finding("database", Status.OK, f"The database {database.place} answers.")


async def _check_schema(database: Database) -> Finding:
    if await schema.is_current(database):
        return Finding("schema", Status.OK, "The schema matches this version.")
    if await schema.is_newer(database):
        found = "The schema is newer than this version."
        return Finding("schema", Status.FAILED, found, "Use the version that migrated the database, or a newer one.")
    if database.is_embedded:
        return Finding("schema", Status.SKIPPED, "The schema is older than this version. The next start migrates it.")
    return Finding("schema", Status.FAILED, "The schema is older than this version.", _SCHEMA_ADVICE)


async def _check_retrieval(database: Database) -> Finding:
    condition = await HealthService(database=database, clock=now).measure()
    if condition.warnings:
        return Finding("retrieval", Status.WARNING, "\n".join(condition.warnings))
    return Finding("retrieval", Status.OK, "No account is paused, and no deadline is near.")


async def _check_api_keys(database: Database) -> Finding:
    keys = (await HealthService(database=database, clock=now).measure()).expiring_keys
    if not keys:
        return Finding("API keys", Status.OK, f"No API key expires within {EXPIRY_WARNING.days} days.")
    found = "\n".join(
        f"{key.name} ({key.id}) of client {key.client} expires on {key.expires_at:%Y-%m-%d}." for key in keys
    )
    return Finding("API keys", Status.WARNING, found, "Replace it: `faceid-results keys create`, then `keys revoke`.")


def credentials_finding(error_code: str | None, request_id: str | None, *, rule_id: str | None) -> Finding:
    """Judges the key pair and the rule by Tencent's answer to a call for a token that does not exist."""
    error_code = error_code or ""
    is_accepted = not error_code or classify(error_code) in {ErrorClass.FINAL, ErrorClass.EXPIRED}
    if rule_id is None and (is_accepted or error_code.startswith("InvalidParameterValue.RuleId")):
        found = "Tencent accepts the key pair; the settings name no RuleId of the account."
        todo = "Set FACEID_RULE_ID, or name rules in faceid-results.toml. Other RuleIds are rejected."
        return Finding("credentials", Status.WARNING, found, todo)
    if is_accepted:
        return Finding("credentials", Status.OK, "Tencent accepts the key pair and the RuleId.")
    found = f"The call ended with {error_code} (RequestId {request_id or 'none'})."
    if (known := advice(error_code)) is None:
        todo = "Try again; if it persists, ask Tencent with the RequestId."
        return Finding("credentials", Status.WARNING, found, todo)
    return Finding("credentials", Status.FAILED, found, known)


def clock_finding(offset: timedelta) -> Finding:
    """Judges the difference of the clocks, ours minus Tencent's."""
    found = f"This machine's clock differs from the endpoint's by {offset.total_seconds():+.0f} s."
    if abs(offset) <= CLOCK_WARNING:
        return Finding("clock", Status.OK, found)
    return Finding("clock", Status.FAILED if abs(offset) > CLOCK_LIMIT else Status.WARNING, found, CLOCK)


def check_folder(name: str, folder: Path, least_bytes: int) -> Finding:
    """Checks the permissions and the free space of a folder, or of the place where it will be created.

    Args:
        name: the setting that names the folder.
        folder: the folder.
        least_bytes: less free space is a warning.
    """
    try:
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    except OSError as error:
        return Finding("disk", Status.FAILED, f"{name} cannot be read: {error.strerror}.", _DISK_ADVICE)
    if not existing.is_dir():
        return Finding("disk", Status.FAILED, f"{name} cannot be created: {existing} is not a folder.", _DISK_ADVICE)
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding("disk", Status.FAILED, f"{name} cannot be written: {existing}.", _DISK_ADVICE)
    free_bytes = shutil.disk_usage(existing).free
    found = f"{name} has {free_bytes / 2**30:.1f} GiB free."
    if free_bytes < least_bytes:
        return Finding("disk", Status.WARNING, found, f"Free some space, or set {name} to a larger disk.")
    return Finding("disk", Status.OK, found)


async def _guarded(check: str, advice: str, work: Awaitable[Finding]) -> Finding:
    """Returns the finding of a check; an error or a timeout becomes a failed one with advice."""
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            return replace(await work, check=check)
    except UnavailableError as error:
        return Finding(check, Status.FAILED, error.cause, advice)
    except ServiceError as error:
        return Finding(check, Status.FAILED, error.detail, advice)
    except TimeoutError:
        return Finding(check, Status.FAILED, f"There was no answer within {_CHECK_SECONDS:.0f} s.", advice)
