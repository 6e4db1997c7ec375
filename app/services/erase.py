"""Erasure: on demand and after the retention. Rows, keys and objects go; only the fact stays."""

import asyncio
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from app.domain import lifecycle
from app.domain.api_key import RETENTION, Actor, Scope
from app.domain.audit import Action
from app.domain.rate import RateClass
from app.domain.verification import State, Verification
from app.errors import ConflictError, DiskFullError, UnavailableError
from app.observability import ERASED
from app.sealing.personal_data import PersonalDataCipher
from app.services.audit import AuditService
from app.services.clock import ClockService
from app.services.limits import LimitService
from app.services.visibility import find_visible, lock_visible, require_scope
from app.storage.database import Database, Transaction
from app.storage.media import MediaStore

_BATCH = 100
_MAX_CONCURRENT_DELETES = 16
# The sweep runs every minute, so hardly anything is overdue by this much, unless a clock or an outage is the cause.
_OVERDUE_AFTER = timedelta(hours=1)
# More overdue verifications than both of these are unusual.
_USUAL_COUNT, _USUAL_SHARE = 20, 0.1

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Overdue:
    """How many verifications have data to erase `at` this time (`due`), for an hour before (`late`), and in total."""

    at: datetime
    due: int
    late: int
    all: int

    @property
    def is_unusual(self) -> bool:
        """Whether so much is late that a wrong clock may be the reason."""
        return self.late > _USUAL_COUNT and self.late > _USUAL_SHARE * self.all


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class EraseService:
    """Erases verifications, and sets and lifts legal holds.

    Args named `client` say whose verification of a token is meant: see `choose_visible`, which raises the errors.
    """

    database: Database
    cipher: PersonalDataCipher
    media: MediaStore
    audit: AuditService
    clocks: ClockService
    limits: LimitService

    async def erase(self, actor: Actor, biz_token: str, *, client: str | None = None) -> None:
        """Erases one verification now. Does nothing if it is already erased.

        Raises:
            ConflictError: it is under a legal hold.
            ForbiddenError: the caller lacks `results:erase`.
            NotFoundError: it does not exist or belongs to another client.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        require_scope(actor.caller, Scope.RESULTS_ERASE)
        self.limits.admit(actor.caller, RateClass.ERASURES)
        try:
            keys = await self._erase_one(actor, biz_token, client)
        except DiskFullError:
            # The media make room for the transaction, which deletes their rows.
            async with self.database.read() as tx:
                known = _erasable(await find_visible(tx, actor.caller, biz_token, client))
                media = (await tx.results.media([known.id])).get(known.id) or ()
            await self._delete([item.object_key for item in media])
            keys = await self._erase_one(actor, biz_token, client)
        await self._delete(keys)
        await self.database.truncate_log()

    async def _erase_one(self, actor: Actor, biz_token: str, client: str | None) -> Collection[str]:
        async with self.database.write() as tx:
            known = _erasable(await lock_visible(tx, actor.caller, biz_token, client))
            if known.state is State.ERASED:
                return []
            await self.audit.record(tx, self.audit.describe(actor, Action.ERASE, verification=known))
            return await self._erase(tx, known)

    async def hold(self, actor: Actor, biz_token: str, *, is_held: bool, client: str | None = None) -> None:
        """Sets or lifts the legal hold, which prevents every erasure.

        Raises:
            ForbiddenError: the caller is no admin.
            NotFoundError: it does not exist or belongs to another client.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        require_scope(actor.caller, Scope.ADMIN)
        self.limits.admit(actor.caller, RateClass.ERASURES)
        async with self.database.write() as tx:
            known = await lock_visible(tx, actor.caller, biz_token, client)
            action = Action.HOLD if is_held else Action.RELEASE
            await self.audit.record(tx, self.audit.describe(actor, action, verification=known))
            await tx.verifications.save(known, lifecycle.held(known, is_held=is_held), self.clocks.clock())

    async def erase_expired(self) -> int:
        """Erases everything whose retention has ended, media before text if theirs is shorter; returns how many.

        Erases nothing while the clock is in doubt. An unusual amount of overdue data stops it until an operator runs
        `erase_overdue`, because a wrong clock may be the reason, and erased data cannot be restored.
        """
        # Read once, together with the trust in it: the clock may jump while the erasure runs.
        now = self.clocks.clock()
        # In addition, for what earlier erasures and other processes could not truncate.
        await self.database.truncate_log()
        if not self.clocks.is_trusted or await self._is_stopped(now):
            return 0
        return await self._erase_until(now, Actor(caller=RETENTION, request_id=secrets.token_hex(16)))

    async def find_overdue(self) -> Overdue:
        """Counts the verifications whose retention has ended, and all that have one."""
        async with self.database.read() as tx:
            return await self._count_overdue(tx, self.clocks.clock())

    async def erase_overdue(self, actor: Actor) -> int:
        """Erases everything whose retention has ended, however much it is; returns how many.

        Raises:
            ConflictError: the clock is in doubt.
        """
        async with self.database.read() as tx:
            known = await tx.installation.find()
        if known and known.doubted_since:
            raise ConflictError("The clock is in doubt, so nothing is erased. Correct it; `doctor` shows by how much.")
        return await self._erase_until(self.clocks.clock(), actor)

    async def _erase_until(self, now: datetime, actor: Actor) -> int:
        total = 0
        while count := await self._erase_batch(now, actor):
            total += count
        if total:
            await self.database.truncate_log()
        return total

    async def _is_stopped(self, now: datetime) -> bool:
        """Returns whether the erasure must wait for an operator, and records the begin and the end of that."""
        async with self.database.write() as tx:
            before = (await tx.installation.get()).erasure_stopped_at
            late = await tx.verifications.count_due_for_erasure(now - _OVERDUE_AFTER)
            # Counting everything takes long, and mostly nothing is late.
            is_unusual = late > _USUAL_COUNT and (await self._count_overdue(tx, now)).is_unusual
            stopped_at = (before or now) if is_unusual else None
            if stopped_at != before:
                await tx.installation.save(erasure_stopped_at=stopped_at)
        if is_unusual:
            log.error("erasure_stopped", overdue=late)
        return is_unusual

    async def _count_overdue(self, tx: Transaction, now: datetime) -> Overdue:
        return Overdue(
            at=now,
            due=await tx.verifications.count_due_for_erasure(now),
            late=await tx.verifications.count_due_for_erasure(now - _OVERDUE_AFTER),
            all=await tx.verifications.count_due_for_erasure(None),
        )

    async def _erase_batch(self, now: datetime, actor: Actor) -> int:
        keys = list[str]()
        async with self.database.write() as tx:
            due = await tx.verifications.lock_due_for_erasure(now, limit=_BATCH)
            for known in due:
                if known.retain_until <= now:
                    keys += await self._erase(tx, known)
                else:
                    removed = await tx.results.erase(known.id, text=False)
                    keys += [item.object_key for item in removed]
                    after = self.cipher.with_digest(known, lifecycle.without_media(known), removed=removed)
                    await tx.verifications.save(known, after, now)
            whole = [known.id for known in due if known.retain_until <= now]
            others = [known.id for known in due if known.retain_until > now]
            for ids, erased in ((whole, ["text", "media"]), (others, ["media"])):
                if ids:
                    outcome = f"erased {' '.join(map(str, ids))}"
                    record = self.audit.describe(actor, Action.RETENTION, fields=erased, outcome=outcome)
                    await self.audit.record(tx, record)
        await self._delete(keys)
        if due:
            log.info("swept", erased=len(due), removed=len(keys))
            ERASED.inc(len(due))
        return len(due)

    async def _erase(self, tx: Transaction, known: Verification) -> Collection[str]:
        now = self.clocks.clock()
        await tx.verifications.save(known, lifecycle.erased(known, now), now)
        await tx.redirects.forget(known.owner)
        # A receiver may have returned personal data.
        await tx.delivery_log.remove_heads_of([known.id])
        return [item.object_key for item in await tx.results.erase(known.id, text=True)]

    async def _delete(self, keys: Collection[str]) -> None:
        """Deletes objects that no row names any more. The orphan sweep deletes those that fail here."""
        slots = asyncio.Semaphore(_MAX_CONCURRENT_DELETES)

        async def delete(key: str) -> None:
            async with slots:
                await self.media.delete(key)

        results = await asyncio.gather(*map(delete, keys), return_exceptions=True)
        if left := sum(isinstance(result, UnavailableError) for result in results):
            log.warning("objects_left_to_the_sweeper", found=left)


def _erasable(known: Verification) -> Verification:
    if known.legal_hold:
        raise ConflictError("The verification is under a legal hold; release it first.", code="legal_hold")
    return known
