"""Steps 3 to 5 of the story: fetches what was claimed, decides what it means, seals and puts the media."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from app.domain import redirect
from app.domain.decision import Found, Reply, Step, Store, Trouble, decide
from app.domain.detection import InfoType, MediaKind, Medium, Outcome, Part
from app.domain.rule import Rule
from app.domain.sniffing import sniff
from app.domain.verification import Call, Verification
from app.errors import UnavailableError
from app.faceid.client import GET_DETECT_INFO, GET_DETECT_INFO_ENHANCED, DetectAnswer
from app.faceid.error_codes import CRASHED, FOREIGN, MEDIA_NOT_STORED, classify
from app.observability import CALL_SECONDS, RECEIVED_BYTES, STEPS
from app.sealing.blobs import BlobSealer
from app.services.claim import Claim, ClaimService
from app.services.record import Learned, RecordService
from app.services.rules import RulesSettings
from app.services.vault import Vault
from app.storage.media import Draft, MediaStore
from app.storage.signals import Signals

_PUT_SECONDS = 30.0  # for the media of one result
_RANDOM = random.SystemRandom()

log = structlog.get_logger()


_Answer = DetectAnswer[BlobSealer[Draft]]


@dataclass(frozen=True, slots=True)
class _Work:
    """A claim, and what is asked for it."""

    claim: Claim
    rule: Rule
    asked: InfoType

    def reply(self, fetched: _Answer) -> Reply:
        """What came, as it is to be decided on."""
        if fetched.call.error_code:
            return Trouble(classify(fetched.call.error_code))
        before = self.claim.verification.pulled_parts
        pulled = self.asked.parts | (before if self.rule.missing(before) else frozenset())
        return Found(self._outcome(fetched), pulled, self.rule.missing(pulled))

    def _outcome(self, fetched: _Answer) -> Outcome | None:
        if fetched.detection:
            return fetched.detection.outcome
        has_media = fetched.media or self.claim.verification.pulled
        return None if has_media and Part.TEXT not in self.asked.parts else Outcome.UNFINISHED


class RetrieveService:
    """The way of one verification from claimed to recorded; `claims` gives the claims out."""

    def __init__(
        self,
        *,
        claims: ClaimService,
        rules: RulesSettings,
        records: RecordService,
        media: MediaStore,
        vault: Vault,
        signals: Signals,
        clock: Callable[[], datetime],
    ) -> None:
        self.claims = claims
        self._rules = rules
        self._records = records
        self._media = media
        self._vault = vault
        self._signals = signals
        self._clock = clock

    async def retrieve(self, claim: Claim) -> None:
        """Makes the call and records what came of it.

        Raises:
            UnavailableError: the database failed; the lease runs out, and the verification comes due again.
        """
        await self.claims.until_slot(claim)
        verification, rule = claim.verification, self._rules.rule(claim.verification.rule_id)
        asked = rule.next_parts(
            verification.pulled_parts, one_by_one=verification.one_by_one, failures=verification.failures
        )
        with ExitStack() as drafts:
            called_at = self._clock()
            try:
                fetched = await claim.account.faceid.get_detect_info(
                    biz_token=verification.biz_token,
                    rule_id=verification.rule_id,
                    info_type=asked,
                    enhanced=rule.enhanced,
                    open_sink=lambda: BlobSealer(drafts.enter_context(self._media.draft())),
                )
            except UnavailableError:
                # Our own disk failed while media arrived.
                action = GET_DETECT_INFO_ENHANCED if rule.enhanced else GET_DETECT_INFO
                fetched = DetectAnswer(self._failure(called_at, MEDIA_NOT_STORED, action, str(asked)))
            if redirect.is_foreign(verification, fetched.detection):
                log.warning("foreign_result", verification=verification.id)
                fetched = DetectAnswer(replace(fetched.call, error_code=FOREIGN))
            await self._conclude(_Work(claim, rule, asked), fetched)

    async def put_off(self, claim: Claim) -> None:
        """Retries later what crashed, in growing intervals: what is wrong with it may be wrong every time."""
        step = self._decide(claim, Trouble(classify(CRASHED)))
        await self._records.record(Learned(claim=claim, call=self._failure(self._clock(), CRASHED), step=step))

    def _failure(self, called_at: datetime, error_code: str, action: str = "", info_type: str = "") -> Call:
        """A call that failed on our side, so that the client has no record of it."""
        return Call(
            called_at=called_at,
            action=action,
            info_type=info_type,
            request_id=None,
            error_code=error_code,
            duration_ms=round((self._clock() - called_at) / timedelta(milliseconds=1)),
            bytes_received=0,
        )

    async def _conclude(self, work: _Work, fetched: _Answer) -> None:
        step = self._decide(work.claim, work.reply(fetched))
        media: Sequence[Medium] = ()
        if isinstance(step, Store):
            try:
                async with asyncio.timeout(_PUT_SECONDS):
                    media = await self._put(work.claim.verification, fetched.media)
            except (UnavailableError, TimeoutError):
                fetched = DetectAnswer(replace(fetched.call, error_code=MEDIA_NOT_STORED))
                step = self._decide(work.claim, work.reply(fetched))
        _tell(work.claim, step, fetched.call)
        text = None
        if isinstance(step, Store) and fetched.detection:
            text = self._vault.seal_text(work.claim.verification, fetched.detection)
        learned = Learned(claim=work.claim, call=fetched.call, step=step, text=text, media=media)
        outdated = await self._records.record(learned)
        self._signals.send(str(work.claim.verification.id))
        for key in outdated:
            await self._media.delete(key)

    def _decide(self, claim: Claim, reply: Reply) -> Step:
        return decide(claim.verification, reply, self._clock(), jitter=_RANDOM.random())

    async def _put(
        self, verification: Verification, sealers: Mapping[MediaKind, BlobSealer[Draft]]
    ) -> Sequence[Medium]:
        """Bytes first: when the rows name the media, they are there."""
        if not sealers:
            return ()
        for sealer in sealers.values():
            sealer.finish()
        keys = await self._media.put(*(sealer.sink for sealer in sealers.values()))
        return [
            self._medium(verification, kind, sealer, key)
            for key, (kind, sealer) in zip(keys, sealers.items(), strict=True)
        ]

    def _medium(self, verification: Verification, kind: MediaKind, sealer: BlobSealer[Draft], key: str) -> Medium:
        medium = Medium(
            kind=kind,
            content_type=sniff(sealer.head),
            size_bytes=sealer.size_bytes,
            sha256=sealer.sink.sha256,
            object_key=key,
            sealed_key=b"",
            stored_at=self._clock(),
        )
        return replace(medium, sealed_key=self._vault.wrap_medium_key(verification, medium, sealer.key))


def _tell(claim: Claim, step: Step, call: Call) -> None:
    name = type(step).__name__
    log.info("retrieved", verification=claim.verification.id, step=name, error_code=call.error_code)
    STEPS.labels(name).inc()
    result = classify(call.error_code) if call.error_code else "answered"
    CALL_SECONDS.labels(call.action, result).observe(call.duration_ms / 1000)
    RECEIVED_BYTES.labels(call.action).inc(call.bytes_received)
