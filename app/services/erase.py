"""Erasure: on demand and after the retention. Rows, keys and objects go; only the fact stays."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

import structlog

from app.domain import lifecycle
from app.domain.api_key import Actor
from app.domain.audit import Action
from app.domain.verification import State, Verification
from app.errors import ConflictError, UnavailableError
from app.observability import ERASED
from app.services.audit import AuditService
from app.services.intake import require_visible
from app.storage.database import Database, Transaction
from app.storage.media import MediaStore

_BATCH = 100
_MAX_CONCURRENT_DELETES = 16

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class EraseService:
    """Erases verifications, and sets and lifts legal holds."""

    database: Database
    media: MediaStore
    audit: AuditService
    clock: Callable[[], datetime]

    async def erase(self, actor: Actor, biz_token: str) -> None:
        """Erases one verification now. Does nothing if it is already erased.

        Raises:
            ConflictError: it is under a legal hold.
            NotFoundError: it does not exist or belongs to another client.
        """
        async with self.database.write() as tx:
            known = require_visible(actor.caller, await tx.verifications.lock(biz_token))
            if known.legal_hold:
                raise ConflictError("The verification is under a legal hold; release it first.", code="legal_hold")
            if known.state is State.ERASED:
                return
            await self.audit.record(tx, self.audit.describe(actor, Action.ERASE, verification=known))
            keys = await self._erase(tx, known)
        await self._delete(keys)

    async def hold(self, actor: Actor, biz_token: str, *, is_held: bool) -> None:
        """Sets or lifts the legal hold, which prevents every erasure.

        Raises:
            NotFoundError: it does not exist or belongs to another client.
        """
        async with self.database.write() as tx:
            known = require_visible(actor.caller, await tx.verifications.lock(biz_token))
            action = Action.HOLD if is_held else Action.RELEASE
            await self.audit.record(tx, self.audit.describe(actor, action, verification=known))
            await tx.verifications.save(known, lifecycle.held(known, is_held=is_held), self.clock())

    async def erase_expired(self) -> int:
        """Erases everything whose retention has ended, media before text if theirs is shorter; returns how many."""
        total = 0
        while count := await self._erase_batch():
            total += count
        return total

    async def _erase_batch(self) -> int:
        now, keys = self.clock(), list[str]()
        async with self.database.write() as tx:
            due = await tx.verifications.lock_due_for_erasure(now, limit=_BATCH)
            for known in due:
                if known.retain_until <= now:
                    keys += await self._erase(tx, known)
                else:
                    keys += await tx.results.erase(known.id, text=False)
                    await tx.verifications.save(known, lifecycle.without_media(known), now)
        await self._delete(keys)
        if due:
            log.info("swept", erased=len(due), removed=len(keys))
            ERASED.inc(len(due))
        return len(due)

    async def _erase(self, tx: Transaction, known: Verification) -> Collection[str]:
        now = self.clock()
        await tx.verifications.save(known, lifecycle.erased(known, now), now)
        return await tx.results.erase(known.id, text=True)

    async def _delete(self, keys: Collection[str]) -> None:
        """Deletes objects that no row names any more. The orphan sweep deletes those that fail here."""
        slots = asyncio.Semaphore(_MAX_CONCURRENT_DELETES)

        async def delete(key: str) -> None:
            async with slots:
                await self.media.delete(key)

        results = await asyncio.gather(*map(delete, keys), return_exceptions=True)
        if left := sum(isinstance(result, UnavailableError) for result in results):
            log.warning("objects_left_to_the_sweeper", found=left)
