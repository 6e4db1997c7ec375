"""Steps 3 to 5 of the story: fetches a claimed verification, stores the encrypted media, and decides the next step."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from app.domain.decision import Answered, ErrorClass, Failure, Reply, Step, Store, decide
from app.domain.detection import Detection, InfoType, Outcome, Part
from app.domain.media import MediaItem, MediaKind, UnreadableMedia, sniff
from app.domain.redirect_state import FOREIGN, is_foreign
from app.domain.rule import Rule
from app.domain.verification import UpstreamCall, Verification
from app.errors import UnavailableError
from app.faceid.client import GET_DETECT_INFO, GET_DETECT_INFO_ENHANCED, DetectAnswer
from app.faceid.error_codes import CRASHED, MEDIA_NOT_STORED, classify
from app.observability import CALL_SECONDS, RECEIVED_BYTES, STEPS, digest_of
from app.sealing.blobs import BlobSealer
from app.sealing.personal_data import PersonalDataCipher
from app.services.claim import Claim, ClaimService
from app.services.clock import ClockService
from app.services.media_guard import MediaGuard
from app.services.record import FetchOutcome, RecordService
from app.services.rule_settings import RulesSettings
from app.storage.database import Database
from app.storage.media import MediaStore, SpoolFile
from app.storage.wakeups import Wakeups

# For all media of one result.
_PUT_SECONDS = 30.0
_RANDOM = random.SystemRandom()

log = structlog.get_logger()

_Answer = DetectAnswer[BlobSealer[SpoolFile]]


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class RetrieveService:
    """Takes one verification from claimed to recorded."""

    claims: ClaimService
    records: RecordService
    rules: RulesSettings
    database: Database
    media: MediaStore
    cipher: PersonalDataCipher
    wakeups: Wakeups
    clocks: ClockService
    media_guard: MediaGuard

    async def retrieve(self, claim: Claim) -> None:
        """Fetches, decides, stores the media if the result is to be stored, and records.

        Raises:
            UnavailableError: the database failed. The lease runs out, and the verification comes due again.
        """
        await self.claims.until_slot(claim)
        verification, rule = claim.verification, self.rules.rule(claim.verification.rule_id)
        requested = rule.next_parts(
            verification.fetched_parts,
            awaited=verification.awaited_parts,
            separately=verification.fetch_separately,
            turn=verification.failures + verification.media_polls,
        )
        media: Sequence[MediaItem] = ()
        with ExitStack() as spool_files:
            answer = await self._fetch(claim, rule, requested, spool_files)
            step = self._decide(claim, _reply(verification, rule, requested, answer))
            if isinstance(step, Store):
                try:
                    media = await self._put(verification, answer.media)
                except (UnavailableError, TimeoutError):
                    self.media_guard.report_failure()
                    answer = DetectAnswer(replace(answer.call, error_code=MEDIA_NOT_STORED))
                    step = self._decide(claim, _reply(verification, rule, requested, answer))
        error_class = classify(answer.call.error_code) if answer.call.error_code else None
        _measure(answer.call, step, error_class)
        text = None
        if answer.detection and isinstance(step, Store):
            text = self.cipher.seal_text(verification, answer.detection)
        unreferenced = await self.records.record(
            FetchOutcome(claim=claim, call=answer.call, error_class=error_class, step=step, text=text, media=media)
        )
        log.info(
            "retrieved" if isinstance(step, Store) else "called",
            verification=verification.id,
            token=digest_of(verification.biz_token),
            step=type(step).__name__,
            error_code=answer.call.error_code,
        )
        self.wakeups.send(str(verification.id))
        for key in unreferenced:
            await self.media.delete(key)

    async def put_off(self, claim: Claim) -> None:
        """Retries a claim later, in growing intervals, after retrieving it crashed: the same may happen every time."""
        call, error_class = self._failed_call(CRASHED, self.clocks.clock()), classify(CRASHED)
        step = self._decide(claim, Failure(error_class))
        await self.records.record(FetchOutcome(claim=claim, call=call, error_class=error_class, step=step))

    async def _fetch(self, claim: Claim, rule: Rule, requested: InfoType, spool_files: ExitStack) -> _Answer:
        """Makes the call. If the answer cannot be used, its error code says why."""
        verification, called_at = claim.verification, self.clocks.clock()
        try:
            answer = await claim.account.faceid.get_detect_info(
                biz_token=verification.biz_token,
                rule_id=verification.rule_id,
                info_type=requested,
                enhanced=rule.enhanced,
                open_sink=lambda: BlobSealer(spool_files.enter_context(self.media.new_file())),
            )
        except UnavailableError:
            # Our own disk failed while media arrived.
            self.media_guard.report_failure()
            action = GET_DETECT_INFO_ENHANCED if rule.enhanced else GET_DETECT_INFO
            return DetectAnswer(self._failed_call(MEDIA_NOT_STORED, called_at, action, str(requested)))
        # The client dates a call by the clock of its signature.
        answer = replace(answer, call=replace(answer.call, called_at=called_at))
        if answer.unreadable:
            token = digest_of(verification.biz_token)
            log.warning("media_unreadable", verification=verification.id, token=token, media=dict(answer.unreadable))
        if await self._is_foreign(verification, answer.detection):
            log.warning("foreign_result", verification=verification.id, token=digest_of(verification.biz_token))
            return DetectAnswer(replace(answer.call, error_code=FOREIGN))
        return answer

    async def _is_foreign(self, verification: Verification, detection: Detection | None) -> bool:
        """Returns whether the result belongs to another run than all whose states came with the token."""
        if detection is None or not is_foreign(verification, detection):
            return False
        if detection.extra is None:
            return True
        async with self.database.read() as tx:
            return not await tx.redirects.is_used_by((detection.extra, *verification.owner))

    async def _put(
        self, verification: Verification, sealers: Mapping[MediaKind, BlobSealer[SpoolFile]]
    ) -> Sequence[MediaItem]:
        """Stores the encrypted media. Bytes first: they are durable before a row names them.

        Raises:
            TimeoutError: the store took too long.
            UnavailableError: it failed.
        """
        if not sealers:
            return ()
        for sealer in sealers.values():
            sealer.finish()
        async with asyncio.timeout(_PUT_SECONDS):
            keys = await self.media.put(*(sealer.target for sealer in sealers.values()))
        items = []
        for key, (kind, sealer) in zip(keys, sealers.items(), strict=True):
            item = MediaItem(
                kind=kind,
                content_type=sniff(sealer.head),
                size_bytes=sealer.size_bytes,
                sha256=sealer.target.sha256,
                object_key=key,
                sealed_key=b"",
                stored_at=self.clocks.clock(),
            )
            sealed_key = self.cipher.wrap_media_key(verification, item, sealer.key)
            items.append(replace(item, sealed_key=sealed_key))
        return items

    def _decide(self, claim: Claim, reply: Reply) -> Step:
        if reply == Failure(ErrorClass.CLOCK):
            self.clocks.doubt()
        return decide(
            claim.verification,
            reply,
            self.clocks.clock(),
            jitter=_RANDOM.random(),
            is_clock_trusted=self.clocks.is_trusted,
        )

    def _failed_call(self, error_code: str, called_at: datetime, action: str = "", info_type: str = "") -> UpstreamCall:
        """Describes a call that failed on our side, so the client has no record of it."""
        return UpstreamCall(
            called_at=called_at,
            action=action,
            info_type=info_type,
            request_id=None,
            error_code=error_code,
            duration_ms=round((self.clocks.clock() - called_at) / timedelta(milliseconds=1)),
            bytes_received=0,
        )


def _reply(verification: Verification, rule: Rule, requested: InfoType, answer: _Answer) -> Reply:
    """Returns what the answer means for the verification."""
    if code := answer.call.error_code:
        error_class = classify(code)
        # Only one timeout after another shows that the answer is too large to arrive in time.
        is_first_timeout = error_class is ErrorClass.TIMED_OUT and verification.last_error_code != code
        return Failure(ErrorClass.RETRY if is_first_timeout else error_class)
    before = verification.fetched_parts
    parts = requested.parts | (before if rule.missing(before) else frozenset())
    is_media_poll = bool(verification.awaited_parts) and not before
    if answer.detection:
        outcome: Outcome | None = answer.detection.outcome
    elif Part.TEXT not in requested.parts and (answer.media or answer.unreadable or before):
        # Only media were requested; the verdict came, or will come, with the text.
        outcome = None
    else:
        outcome = Outcome.UNFINISHED
    missing = frozenset[Part]() if is_media_poll else rule.missing(parts)
    unreadable = tuple(UnreadableMedia(kind, reason) for kind, reason in answer.unreadable.items())
    unread_before = tuple(item for item in verification.unreadable if item.kind.part not in requested.parts)
    awaited = verification.awaited_parts - requested.parts | _lacking(verification, requested, outcome, answer)
    return Answered(outcome, parts, missing, awaited, unread_before + unreadable)


def _lacking(
    verification: Verification, requested: InfoType, outcome: Outcome | None, answer: _Answer
) -> frozenset[Part]:
    """Returns the requested parts that may be complete in a later answer.

    A person who passed has them all, except ID cards in a flow that photographs none.
    """
    unreadable = frozenset(kind.part for kind in answer.unreadable)
    if (outcome or verification.outcome) is not Outcome.PASSED:
        return unreadable
    returned = {Part.TEXT} | {kind.part for kind in answer.media}
    if answer.detection and not answer.detection.has_id_card:
        returned.add(Part.ID_CARD)
    return unreadable | requested.parts - returned


def _measure(call: UpstreamCall, step: Step, error_class: ErrorClass | None) -> None:
    STEPS.labels(type(step).__name__).inc()
    CALL_SECONDS.labels(call.action, error_class or "answered").observe(call.duration_ms / 1000)
    RECEIVED_BYTES.labels(call.action).inc(call.bytes_received)
