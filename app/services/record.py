"""Step 6 of the story: writes all that was learned, of many verifications in one transaction where many wait for it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from app.domain import lifecycle, pause
from app.domain.decision import ErrorClass, Pause, Step, Store
from app.domain.detection import Medium
from app.domain.verification import Call, Verification
from app.faceid.error_codes import advice, classify
from app.services.claim import Claim
from app.services.together import Together
from app.storage.database import Database, Transaction
from app.storage.pauses import PauseStore
from app.storage.quota import QuotaStore
from app.storage.results import ResultStore, SealedText
from app.storage.signals import DUE, Signals
from app.storage.verifications import VerificationStore

_PAUSE = timedelta(seconds=1)  # Tencent counts by the second
_IT_ANSWERS = {ErrorClass.FINAL, ErrorClass.EXPIRED, ErrorClass.SLOW_DOWN, ErrorClass.ASK_FOR_LESS}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a call came to, and what is to be kept of it."""

    claim: Claim
    call: Call
    step: Step
    text: SealedText | None = None
    media: Sequence[Medium] = ()


class RecordService:
    """The last transaction of a retrieval."""

    def __init__(
        self,
        *,
        database: Database,
        verifications: VerificationStore,
        results: ResultStore,
        quota: QuotaStore,
        pauses: PauseStore,
        signals: Signals,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._verifications = verifications
        self._results = results
        self._quota = quota
        self._pauses = pauses
        self._signals = signals
        self._clock = clock
        self._record = Together(self._record_all)

    async def record(self, learned: Learned) -> Collection[str]:
        """Writes it, unless a newer claim is at work; answers the object keys that nothing names.

        Raises:
            UnavailableError: the database failed.
        """
        return await self._record(learned)

    async def _record_all(self, together: Sequence[Learned]) -> Sequence[Collection[str]]:
        outdated: list[Collection[str]] = []
        changes: list[tuple[Verification, Verification]] = []
        stored: list[Learned] = []
        async with self._database.write() as tx:
            ids = [learned.claim.verification.id for learned in together]
            rows = {row.id: row for row in await self._verifications.lock_all(tx, ids)}
            for learned in together:
                claimed = learned.claim.verification
                current = rows.get(claimed.id)
                if current is None or current.claim != claimed.claim:
                    outdated.append([medium.object_key for medium in learned.media])
                    continue
                changes.append((current, lifecycle.after(current, learned.step, learned.call, self._clock())))
                is_stored = isinstance(learned.step, Store)
                outdated.append(await self._make_room(tx, current, learned) if is_stored else [])
                if is_stored:
                    stored.append(learned)
            await self._results.add_calls(tx, zip(ids, (learned.call for learned in together), strict=True))
            await self._verifications.save_all(tx, changes)
            await self._results.add_all(
                tx, [(learned.claim.verification.id, learned.text, learned.media) for learned in stored]
            )
            await self._heed(tx, together)
        now = self._clock()
        if any(after.due_at and after.due_at <= now for _, after in changes):
            self._signals.send(DUE)
        return outdated

    async def _make_room(self, tx: Transaction, before: Verification, learned: Learned) -> Collection[str]:
        if not before.retrieved_at:
            return []
        kinds = [medium.kind for medium in learned.media]
        return await self._results.remove(tx, before.id, text=learned.text is not None, kinds=kinds)

    async def _heed(self, tx: Transaction, together: Sequence[Learned]) -> None:
        """What the answers mean for their accounts as a whole; the quota's row comes last, as in a claim."""
        slow: set[str] = set()
        for learned in together:
            claim, code = learned.claim, learned.call.error_code
            error_class, account = classify(code) if code else None, claim.account.name
            if isinstance(learned.step, Pause):
                rule_id = claim.verification.rule_id if learned.step.rule_only else None
                begun = pause.begin(account, rule_id, code or "", self._clock())
                if await self._pauses.begin(tx, begun):
                    log.error("paused", **begun.cause, advice=advice(begun.error_code))
            if claim.probe and _is_over(claim.probe, error_class):
                await self._pauses.end(tx, claim.probe)
                log.warning("resumed", **claim.probe.cause)
            if error_class is ErrorClass.SLOW_DOWN:
                slow.add(account)
        for account in sorted(slow):
            await self._quota.slow_down(tx, account, pause=_PAUSE)


def _is_over(probed: pause.Pause, error_class: ErrorClass | None) -> bool:
    """Whether an answer of this class (None: a result) says that the operator has acted."""
    is_another_pause = error_class is ErrorClass.RULE and probed.rule_id is None
    return error_class is None or error_class in _IT_ANSWERS or is_another_pause
