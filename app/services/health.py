"""Health: whether callbacks can be accepted, and what an operator should know."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from app.domain.api_key import EXPIRY_WARNING, Actor, ApiKey, Scope
from app.domain.pause import Pause
from app.domain.webhook_endpoint import EndpointState
from app.errors import ConfigurationError, DiskFullError, UnavailableError
from app.faceid.error_codes import CLOCK, advice
from app.observability import PERSONS
from app.services.media_guard import DiskSpace, space_of
from app.services.visibility import require_scope
from app.services.workers import SEEN_WITHIN
from app.storage import schema
from app.storage.database import Database, Transaction

FILING_WARNING, FILING_THRESHOLD = 80_000, 100_000

# Of Tencent's 72 hours. Verifications that are still pending then are at risk.
WARNING_HOURS, ALARM_HOURS = 24, 6
# Anybody may call `/readyz`, so it must stay cheap.
_MAX_COUNTED = 10_000
# Those that expire first.
_MAX_KEYS = 100

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Condition:
    """The pauses, the number of pending verifications with less than so many hours left, by hours, and other problems.

    `expiring_keys` expire within 14 days. `doubted_since` and `erasure_stopped_at` are those of the installation.
    `unattended_since` is since when a verification or a delivery waits, if no worker has reported.
    """

    pauses: Sequence[Pause]
    pending: dict[int, int]
    expiring_keys: Sequence[ApiKey]
    doubted_since: datetime | None = None
    erasure_stopped_at: datetime | None = None
    low_disks: Sequence[DiskSpace] = ()
    endpoints: Mapping[EndpointState, int] = field(default_factory=dict)
    unattended_since: datetime | None = None

    @property
    def warnings(self) -> Sequence[str]:
        """Returns the problems of the retrieval and how to fix them, one sentence each."""
        deadlines = [
            f"{count} pending verifications have less than {hours} h left."
            for hours, count in self.pending.items()
            if count
        ]
        return [*map(_sentence, self.pauses), *deadlines, *self._halts()]

    def _halts(self) -> Iterator[str]:
        if self.unattended_since:
            yield (
                f"Work waits since {_at(self.unattended_since)}, and no worker has reported within a minute. "
                "Nothing is fetched or delivered until one runs: `faceid-results worker`, or `serve`."
            )
        for space in self.low_disks:
            reserve = f"{space.reserve_bytes / 2**20:.1f} MiB"
            yield f"{space}. No media are fetched until {reserve} are free. Delete files there, or use a larger disk."
        if self.doubted_since:
            yield (
                f"The clock is in doubt since {_at(self.doubted_since)}. Until it agrees with Tencent's, nothing is "
                f"fetched, expires or is erased. {CLOCK}"
            )
        if self.erasure_stopped_at:
            yield (
                f"The erasure of expired data waits since {_at(self.erasure_stopped_at)}, because an unusual amount is "
                "overdue. Check with `faceid-results retention status`, then run `faceid-results retention run`."
            )

    @property
    def endpoint_warnings(self) -> Sequence[str]:
        """Returns the trouble of webhook endpoints, one sentence per state."""
        failing = self.endpoints.get(EndpointState.FAILING, 0)
        is_one = failing == 1
        return (
            [f"{failing} webhook endpoint{'' if is_one else 's'} {'fails' if is_one else 'fail'}: see `webhooks list`."]
            if failing
            else []
        )

    @property
    def key_warnings(self) -> Sequence[str]:
        """Returns the API keys that expire soon, one sentence each."""
        return [
            f"API key {key.id} expires at {key.expires_at:%Y-%m-%dT%H:%M:%SZ}. Replace it: run `keys create`."
            for key in self.expiring_keys
        ]


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class HealthService:
    """Checks the database, but not the media store: without that, callbacks can and must still be accepted.

    `folders` are those that the service writes to.
    """

    database: Database
    clock: Callable[[], datetime]
    folders: Collection[Path] = ()

    async def check(self) -> Condition:
        """Returns the condition if callbacks can be accepted.

        Raises:
            UnavailableError: the database does not answer, accepts no writes, has another schema or a full disk.
        """
        try:
            await schema.require_current(self.database)
        except ConfigurationError as error:
            raise UnavailableError("The database schema does not match this version.", cause=error.detail) from None
        if (folder := self.database.folder) and (space := space_of(folder)).is_full:
            raise DiskFullError("The disk of the database is full.", cause=f"{space}.")
        # Fails on a server that accepts no writes.
        async with self.database.write():
            pass
        return await self.measure()

    async def report(self, actor: Actor) -> Condition:
        """Returns the condition to an admin. Raises the errors of `check`, and ForbiddenError to others."""
        require_scope(actor.caller, Scope.ADMIN)
        return await self.check()

    async def measure(self) -> Condition:
        """Returns the condition.

        Raises:
            UnavailableError: the database does not answer.
        """
        now = self.clock()
        async with self.database.read() as tx:
            pauses = await tx.pauses.list()
            installation = await tx.installation.find()
            pending = {
                hours: await tx.verifications.count_pending(
                    deadline_before=now + timedelta(hours=hours), limit=_MAX_COUNTED
                )
                for hours in (WARNING_HOURS, ALARM_HOURS)
            }
            keys = await tx.api_keys.list_expiring(now, now + EXPIRY_WARNING, limit=_MAX_KEYS)
            endpoints = await tx.webhook_endpoints.count_by_state()
            unattended_since = await _unattended_since(tx, now)
        doubted_since = installation.doubted_since if installation else None
        erasure_stopped_at = installation.erasure_stopped_at if installation else None
        spaces = {space.device: space for space in map(space_of, self.folders)}
        low_disks = [space for space in spaces.values() if not space.allows_media]
        return Condition(
            pauses, pending, keys, doubted_since, erasure_stopped_at, low_disks, endpoints, unattended_since
        )

    async def count_persons(self) -> int:
        """Counts the persons of whom a face is stored. From 100,000 on they must be filed with the authority.

        Order 19 of the CAC and the MPS (2025), article 15, grants 30 working days; the warning comes earlier.
        """
        async with self.database.read() as tx:
            persons = await tx.results.count_persons()
        PERSONS.set(persons)
        if persons >= FILING_WARNING:
            report = log.error if persons >= FILING_THRESHOLD else log.warning
            report("persons_to_be_filed", persons=persons)
        return persons

    async def alarm(self) -> None:
        """Logs what an operator should know."""
        condition = await self.measure()
        for pause in condition.pauses:
            log.error("still_paused", **pause.cause, advice=advice(pause.error_code))
        for hours, report in ((ALARM_HOURS, log.error), (WARNING_HOURS, log.warning)):
            if condition.pending[hours]:
                report("deadline_near", pending=condition.pending[hours], hours=hours)


async def _unattended_since(tx: Transaction, now: datetime) -> datetime | None:
    """Returns since when a verification or a delivery waits although no worker has reported; None if all is well."""
    if await tx.workers.count_seen(now - SEEN_WITHIN):
        return None
    oldest = await tx.statistics.oldest_pending(None)
    waiting = [oldest.born_at] if oldest and not oldest.is_malformed else []
    if due_at := await tx.delivery_log.oldest_due_at(now):
        waiting.append(due_at)
    # A worker that has just started reports soon.
    return min((since for since in waiting if since < now - SEEN_WITHIN), default=None)


def _sentence(pause: Pause) -> str:
    what = f"Account {pause.account}" if pause.rule_id is None else f"RuleId {pause.rule_id} of account {pause.account}"
    return (
        f"{what} is paused since {_at(pause.paused_at)}: {pause.error_code}. {advice(pause.error_code) or ''}".rstrip()
    )


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%SZ}"
