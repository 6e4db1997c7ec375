"""Step 6 of the story: writes the outcomes of fetches, many in one transaction under load."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from app.domain import lifecycle, pause
from app.domain.decision import ErrorClass, PauseCalls, Retry, Step, Store
from app.domain.detection import SealedText
from app.domain.media import MediaItem, MediaRow
from app.domain.verification import UpstreamCall, Verification
from app.faceid.error_codes import advice
from app.sealing.personal_data import PersonalDataCipher
from app.services.batching import Batcher
from app.services.claim import Claim
from app.storage.database import Database, Transaction
from app.storage.wakeups import DUE, Wakeups

# Tencent counts calls per second.
_SLOW_DOWN = timedelta(seconds=1)
# Per account. The tokens of further rules are retried late.
_MAX_PAUSED_RULES = 20
_LATE = timedelta(minutes=30)
# Errors that Tencent returns only while the account and the rule work.
_ENDS_PAUSE = {ErrorClass.FINAL, ErrorClass.EXPIRED, ErrorClass.SLOW_DOWN, ErrorClass.ASK_FOR_LESS}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOutcome:
    """The result of a call, its decision, and the values to store. `error_class` is None after a result."""

    claim: Claim
    call: UpstreamCall
    error_class: ErrorClass | None
    step: Step
    text: SealedText | None = None
    media: Sequence[MediaItem] = ()

    @property
    def is_stored(self) -> bool:
        """Whether the text and media are to be stored."""
        return isinstance(self.step, Store)


@dataclass(kw_only=True, repr=False, eq=False)
class RecordService:
    """The last transaction of a retrieval."""

    database: Database
    cipher: PersonalDataCipher
    wakeups: Wakeups
    clock: Callable[[], datetime]
    _record: Batcher[FetchOutcome, Collection[str]] = field(init=False)

    def __post_init__(self) -> None:
        self._record = Batcher(self._record_batch)

    async def record(self, outcome: FetchOutcome) -> Collection[str]:
        """Writes the outcome, unless a newer claim exists; returns the object keys that no row names.

        Raises:
            UnavailableError: the database failed.
        """
        return await self._record(outcome)

    async def _record_batch(self, outcomes: Sequence[FetchOutcome]) -> Sequence[Collection[str]]:
        unreferenced: list[Collection[str]] = []
        changes: list[tuple[Verification, Verification]] = []
        stored: list[FetchOutcome] = []
        async with self.database.write() as tx:
            outcomes = await self._with_bounded_pauses(tx, outcomes)
            ids = [outcome.claim.verification.id for outcome in outcomes]
            rows = {row.id: row for row in await tx.verifications.lock_by_id(ids)}
            for outcome in outcomes:
                current = rows.get(outcome.claim.verification.id)
                if current is None or current.claim != outcome.claim.verification.claim:
                    unreferenced.append([item.object_key for item in outcome.media])
                    continue
                after = lifecycle.after(current, outcome.step, outcome.call, self.clock())
                if not outcome.is_stored:
                    changes.append((current, self.cipher.with_digest(current, after)))
                    unreferenced.append([item.object_key for item in outcome.media])
                    continue
                removed = await self._replace(tx, current, outcome)
                if outcome.text:
                    after = replace(after, err_code=outcome.text.values["err_code"])
                after = self.cipher.with_digest(current, after, text=outcome.text, added=outcome.media, removed=removed)
                changes.append((current, after))
                unreferenced.append([item.object_key for item in removed])
                stored.append(outcome)
            await tx.results.add_calls(zip(ids, (outcome.call for outcome in outcomes), strict=True))
            await tx.verifications.save_all(changes, self.clock())
            await tx.results.add_all(
                [(outcome.claim.verification.id, outcome.text, outcome.media) for outcome in stored]
            )
            await self._update_accounts(tx, outcomes)
        now = self.clock()
        if any(after.due_at and after.due_at <= now for _, after in changes):
            self.wakeups.send(DUE)
        return unreferenced

    async def _with_bounded_pauses(self, tx: Transaction, outcomes: Sequence[FetchOutcome]) -> Sequence[FetchOutcome]:
        """Retries late instead of pausing yet another rule: every pause costs probes and a line in each report."""

        def rule_of(outcome: FetchOutcome) -> tuple[str, str] | None:
            is_of_rule = isinstance(outcome.step, PauseCalls) and outcome.step.rule_only
            return (outcome.claim.account.name, outcome.claim.verification.rule_id) if is_of_rule else None

        if not any(map(rule_of, outcomes)):
            return outcomes
        paused = {(pause.account, pause.rule_id) for pause in await tx.pauses.list() if pause.rule_id}
        bounded = []
        for outcome in outcomes:
            if (rule := rule_of(outcome)) and rule not in paused:
                if sum(account == rule[0] for account, _ in paused) >= _MAX_PAUSED_RULES:
                    bounded.append(replace(outcome, step=Retry(self.clock() + _LATE)))
                    continue
                paused.add(rule)
            bounded.append(outcome)
        return bounded

    async def _replace(self, tx: Transaction, before: Verification, outcome: FetchOutcome) -> Collection[MediaRow]:
        """Removes an earlier result as far as the new one replaces it."""
        # Not `retrieved_at` alone: a row that lost it has a result all the same.
        if not (before.retrieved_at or before.revision or before.attempts):
            return []
        kinds = [item.kind for item in outcome.media]
        return await tx.results.remove(before.id, text=outcome.text is not None, kinds=kinds)

    async def _update_accounts(self, tx: Transaction, outcomes: Sequence[FetchOutcome]) -> None:
        """Begins and ends pauses, and slows down accounts. The quota's row comes last, as in a claim."""
        slow: set[str] = set()
        for outcome in outcomes:
            claim, account = outcome.claim, outcome.claim.account.name
            if isinstance(outcome.step, PauseCalls):
                rule_id = claim.verification.rule_id if outcome.step.rule_only else None
                begun = pause.begin(account, rule_id, outcome.call.error_code or "", self.clock())
                if await tx.pauses.begin(begun):
                    log.error("paused", **begun.cause, advice=advice(begun.error_code))
            if claim.probe and _is_over(claim.probe, outcome.error_class):
                await tx.pauses.end(claim.probe)
                log.warning("resumed", **claim.probe.cause)
            if outcome.error_class is ErrorClass.SLOW_DOWN:
                slow.add(account)
        for account in sorted(slow):
            await tx.quota.slow_down(account, pause=_SLOW_DOWN)


def _is_over(probed: pause.Pause, error_class: ErrorClass | None) -> bool:
    """Returns whether a probe's answer (None: a result) shows that the cause of the pause is fixed."""
    # A rule's error shows that the account works.
    is_other_cause = error_class is ErrorClass.RULE and probed.rule_id is None
    return error_class is None or error_class in _ENDS_PAUSE or is_other_cause
