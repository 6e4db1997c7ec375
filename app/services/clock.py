"""The clock of the service, and whether it can be trusted.

Machines start with wrong clocks and correct them in jumps. So the service reads the machine's clock only at intervals,
and counts on by a steady clock. On Postgres it takes the database's time, which all workers share.

Nothing irreversible happens while the clock is in doubt: no verification expires, and no retention ends. The doubt
begins with a jump since the last check, which another process may have made, or when Tencent rejects a signature as
expired. It ends when the clock agrees with the `Date` of Tencent's responses.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from app import tasks
from app.errors import ServiceError, UnavailableError
from app.faceid.client import server_time
from app.faceid.credentials import AccountSettings
from app.storage.database import Database

Clock = Callable[[], datetime]

CHECK_SECONDS = 15.0
# The next check is due far earlier, even after a restart.
_LONGEST_GAP = timedelta(minutes=15)
# Services that adjust clocks smoothly stay below this.
_SLEW = timedelta(seconds=5)
TOLERANCE = timedelta(minutes=5)
"""Tencent rejects signatures that are further off."""

log = structlog.get_logger()


def now() -> datetime:
    """Returns the time of the machine: aware, in UTC."""
    return datetime.now(UTC)


def steady_seconds() -> float:
    """Returns seconds by a clock that cannot be set. On Linux it continues while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class SteadyClock:
    """A clock without jumps: starts with the machine's time, then counts by a steady clock until it is `set`."""

    def __init__(self, machine: Clock = now, steady: Callable[[], float] = steady_seconds) -> None:
        self.machine = machine
        self._steady = steady
        self.set(machine())

    def __call__(self) -> datetime:
        """Returns the time: aware, in UTC."""
        return self._at + timedelta(seconds=self._steady() - self._since)

    def set(self, at: datetime) -> None:
        """Continues from `at`."""
        self._at, self._since = at, self._steady()


@dataclass(kw_only=True, repr=False, eq=False)
class ClockService:
    """Sets the clock and judges it. A clock other than `SteadyClock` is its provider's business, and always trusted.

    `accounts` say how to reach Tencent, whose time is compared.
    """

    database: Database
    clock: Clock
    accounts: Collection[AccountSettings]
    is_trusted: bool = field(init=False)
    _contradictions: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.is_trusted = not isinstance(self.clock, SteadyClock)

    @property
    def signing_clock(self) -> Clock:
        """The clock for signatures: ours, or the machine's if a provided one only simulates the schedule."""
        return self.clock if isinstance(self.clock, SteadyClock) else now

    def doubt(self) -> None:
        """Notes that Tencent rejected the time of a signature."""
        if isinstance(self.clock, SteadyClock):
            self.is_trusted = False
            self._contradictions += 1

    async def follow(self) -> None:
        """Sets the clock by the database's, or without one by the machine's.

        Raises:
            UnavailableError: the database does not answer.
        """
        if isinstance(self.clock, SteadyClock):
            self.clock.set(await self._database_time() or self.clock.machine())

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follows at intervals during the block, for processes that do not `check`."""

        async def follow_forever() -> None:
            while True:
                await asyncio.sleep(CHECK_SECONDS)
                with suppress(UnavailableError):
                    await self.follow()

        task = asyncio.create_task(follow_forever(), name="clock")
        try:
            yield
        finally:
            await tasks.end(task)

    async def check(self) -> None:
        """Sets the clock, and compares it with the last check and in doubt with Tencent's time. For workers.

        Raises:
            UnavailableError: the database does not answer.
        """
        clock = self.clock
        if not isinstance(clock, SteadyClock):
            return
        contradictions = self._contradictions
        async with self.database.write() as tx:
            known = await tx.installation.get()
            is_new = known.checked_at is None and not await tx.verifications.has_any()
            at = await tx.installation.clock()
        # From here to the verdict nothing is awaited: no other task may trust a time that is not judged yet.
        is_continuous = at is not None or abs(clock.machine() - clock()) <= _SLEW
        if is_continuous:
            clock.set(at or clock.machine())
        doubted_since = known.doubted_since
        # In a new database nothing can expire or be erased.
        if contradictions or not is_continuous or not (is_new or _follows(clock(), known.checked_at)):
            doubted_since = doubted_since or clock()
        self.is_trusted = self.is_trusted and doubted_since is None
        if doubted_since and await self._is_confirmed(clock):
            doubted_since = None
        # Another worker may have begun or ended the doubt in the meantime.
        changes = {"doubted_since": doubted_since} if doubted_since != known.doubted_since else {}
        async with self.database.write() as tx:
            await tx.installation.save(checked_at=clock(), **changes)
        self._contradictions -= contradictions
        self.is_trusted = doubted_since is None and not self._contradictions
        if doubted_since:
            log.error("clock_in_doubt", since=f"{doubted_since:%Y-%m-%dT%H:%M:%SZ}")

    async def _database_time(self) -> datetime | None:
        """Returns the time of the database's server; None if an embedded one has no server."""
        if self.database.is_embedded:
            return None
        async with self.database.read() as tx:
            return await tx.installation.clock()

    async def _is_confirmed(self, clock: SteadyClock) -> bool:
        """Returns whether Tencent's time confirms ours. If it confirms the machine's instead, sets ours by that."""
        for account in self.accounts:
            try:
                theirs = await server_time(account)
            except ServiceError:
                continue
            if self.database.is_embedded and abs(clock.machine() - theirs) <= TOLERANCE:
                clock.set(clock.machine())
            return abs(clock() - theirs) <= TOLERANCE
        return False


def _follows(at: datetime, checked_at: datetime | None) -> bool:
    """Returns whether the time advanced steadily since the last check, of this or another process."""
    return checked_at is not None and -_SLEW <= at - checked_at <= _LONGEST_GAP
