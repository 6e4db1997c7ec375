"""Ends pauses that nothing waits for, and verifications whose rule does not exist."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from app.domain import lifecycle
from app.domain.decision import KEPT_FROM_CREATION
from app.domain.verification import Verification
from app.faceid.error_codes import RULE_MISSING
from app.sealing.personal_data import PersonalDataCipher
from app.services.clock import ClockService
from app.storage.database import Database
from app.storage.wakeups import Wakeups

# An operator who has mistyped a rule notices it within this time. Ended verifications can be retrieved again.
_PATIENCE = timedelta(hours=6)
_BATCH = 500

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class PauseService:
    """Settles pauses in the background. For workers."""

    database: Database
    cipher: PersonalDataCipher
    wakeups: Wakeups
    clocks: ClockService

    async def settle(self) -> None:
        """Ends pauses without verifications, and verifications whose rule has not existed for six hours."""
        async with self.database.write() as tx:
            for pause in await tx.pauses.list():
                if not await tx.queue.has_any(pause.account, pause.rule_id):
                    # The next verification finds out whether the cause persists.
                    await tx.pauses.end(pause)
        while self.clocks.is_trusted and await self._end_batch(self.clocks.clock()) == _BATCH:
            pass

    async def _end_batch(self, now: datetime) -> int:
        async with self.database.write() as tx:
            missing = [
                (pause.account, pause.rule_id)
                for pause in await tx.pauses.list()
                if pause.rule_id and pause.error_code == RULE_MISSING and pause.paused_at <= now - _PATIENCE
            ]
            found = await tx.verifications.lock_rejected(
                RULE_MISSING, missing, deadline_before=now + KEPT_FROM_CREATION - _PATIENCE, limit=_BATCH
            )
            await tx.verifications.save_all([(known, self._ended(known)) for known in found], now)
        for known in found:
            self.wakeups.send(str(known.id))
        if found:
            log.error("rule_missing", found=len(found))
        return len(found)

    def _ended(self, known: Verification) -> Verification:
        return self.cipher.with_digest(known, lifecycle.rejected(known, RULE_MISSING))
