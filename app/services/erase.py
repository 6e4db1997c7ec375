"""Erasure: on demand and when the time is over. Rows, keys and every object; what stays is that it was erased."""

import asyncio
from collections.abc import Callable, Collection
from datetime import datetime

import structlog

from app.domain import lifecycle
from app.domain.access import Caller
from app.domain.audit import Action
from app.domain.verification import State, Verification
from app.errors import ConflictError, NotFoundError, UnavailableError
from app.observability import ERASED
from app.services.audit import AuditService
from app.storage.database import Database, Transaction
from app.storage.media import MediaStore
from app.storage.results import ResultStore
from app.storage.verifications import VerificationStore

_BATCH = 100
_AT_ONCE = 16  # objects that are deleted side by side

log = structlog.get_logger()


class EraseService:
    """Erases, holds and releases."""

    def __init__(
        self,
        *,
        database: Database,
        verifications: VerificationStore,
        results: ResultStore,
        media: MediaStore,
        audit: AuditService,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._verifications = verifications
        self._results = results
        self._media = media
        self._audit = audit
        self._clock = clock

    async def erase(self, caller: Caller, biz_token: str, *, request_id: str) -> None:
        """Erases all of one verification, now. Once more does nothing.

        Raises:
            ConflictError: it is held (`legal_hold`).
            NotFoundError: it is unknown or another client's.
        """
        async with self._database.write() as tx:
            known = await self._locked(tx, caller, biz_token)
            if known.legal_hold:
                raise ConflictError("The verification is held; release it first.", code="legal_hold")
            if known.state is State.ERASED:
                return
            await self._audit.record(tx, caller, Action.ERASE, verification=known, request_id=request_id)
            keys = await self._erase(tx, known)
        await self._delete(keys)

    async def hold(self, caller: Caller, biz_token: str, *, is_held: bool, purpose: str, request_id: str) -> None:
        """Keeps a verification from every erasure, or lets it go again. Raises `NotFoundError` as `erase` does."""
        async with self._database.write() as tx:
            known = await self._locked(tx, caller, biz_token)
            action = Action.HOLD if is_held else Action.RELEASE
            await self._audit.record(tx, caller, action, verification=known, purpose=purpose, request_id=request_id)
            await self._verifications.save(tx, known, lifecycle.held(known, is_held=is_held))

    async def sweep(self) -> int:
        """Erases what has been kept long enough, media before text where their time is shorter; answers how many."""
        total = 0
        while count := await self._sweep_batch():
            total += count
        return total

    async def _sweep_batch(self) -> int:
        now, keys = self._clock(), list[str]()
        async with self._database.write() as tx:
            due = await self._verifications.lock_due_for_erasure(tx, now, limit=_BATCH)
            for known in due:
                if known.retain_until <= now:
                    keys += await self._erase(tx, known)
                else:
                    keys += await self._results.erase(tx, known.id, text=False)
                    await self._verifications.save(tx, known, lifecycle.without_media(known))
        await self._delete(keys)
        if due:
            log.info("swept", erased=len(due), removed=len(keys))
            ERASED.inc(len(due))
        return len(due)

    async def _erase(self, tx: Transaction, known: Verification) -> Collection[str]:
        await self._verifications.save(tx, known, lifecycle.erased(known, self._clock()))
        return await self._results.erase(tx, known.id, text=True)

    async def _delete(self, keys: Collection[str]) -> None:
        """Their keys are gone already; what the store does not delete now is an orphan, for its sweeper to delete."""
        places = asyncio.Semaphore(_AT_ONCE)

        async def delete(key: str) -> None:
            async with places:
                await self._media.delete(key)

        done = await asyncio.gather(*map(delete, keys), return_exceptions=True)
        if left := sum(isinstance(outcome, UnavailableError) for outcome in done):
            log.warning("objects_left_to_the_sweeper", found=left)

    async def _locked(self, tx: Transaction, caller: Caller, biz_token: str) -> Verification:
        known = await self._verifications.lock(tx, biz_token)
        if known is None or not caller.sees(known.client):
            raise NotFoundError("There is no such verification.")
        return known
