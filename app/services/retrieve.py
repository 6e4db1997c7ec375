"""Retrieves results: claims what is due within the quota, fetches, puts the media, records all in one transaction."""

import asyncio
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import cast

import structlog
from pydantic import BaseModel, field_validator

from app.domain import lifecycle
from app.domain.decision import ErrorClass, Found, Reply, Step, Store, Trouble, decide
from app.domain.detection import InfoType, MediaKind, Medium, Outcome, Part
from app.domain.sniffing import sniff
from app.domain.verification import Call, Verification
from app.errors import UnavailableError
from app.faceid.client import MEDIA_NOT_STORED, FaceIdClient, Fetched
from app.faceid.codes import classify
from app.observability import CALL_SECONDS, RECEIVED_BYTES, STEPS
from app.storage.database import Database
from app.storage.media import Draft, MediaStore
from app.storage.queue import Queue
from app.storage.quota import QuotaStore
from app.storage.results import ResultStore
from app.storage.signals import Signals
from app.storage.verifications import VerificationStore

ACCOUNT = "default"

LEASE = timedelta(seconds=15)  # renewed while the worker lives; what a dead one held comes due after it

_FARTHEST_SLOT = timedelta(seconds=2.5)  # what would have to wait longer stays due, for whoever comes first
_RENEW_SECONDS = 3.0  # a renewal that hangs leaves time for another
_PUT_SECONDS = 30.0  # for the media of one result
_PAUSE = timedelta(seconds=1)  # Tencent counts by the second
_MOST_LATE_SECONDS = 0.05  # a slot used later than this crowds its successors
_SLOT_TRIES = 2  # a machine that is always late goes on all the same

_RANDOM = random.SystemRandom()

log = structlog.get_logger()


class RetrieveSettings(BaseModel):
    """What is asked of Tencent, and how fast."""

    faceid_info_type: str = "0"

    @field_validator("faceid_info_type")
    @classmethod
    def _known_parts(cls, value: str) -> str:
        return str(InfoType(value))


@dataclass(frozen=True, slots=True)
class Claim:
    """A verification that is ours for the length of a lease; its call is to be made at `slot` (monotonic)."""

    verification: Verification
    slot: float


class RetrieveService:
    """The way of one verification from due to recorded."""

    def __init__(
        self,
        *,
        settings: RetrieveSettings,
        requests_per_second: float,
        database: Database,
        verifications: VerificationStore,
        queue: Queue,
        results: ResultStore,
        quota: QuotaStore,
        media: MediaStore,
        faceid: FaceIdClient,
        signals: Signals,
        clock: Callable[[], datetime],
    ) -> None:
        self._info_type = InfoType(settings.faceid_info_type)
        self._interval = timedelta(seconds=1 / requests_per_second)
        self._database = database
        self._verifications = verifications
        self._queue = queue
        self._results = results
        self._quota = quota
        self._media = media
        self._faceid = faceid
        self._signals = signals
        self._clock = clock

    async def claim(self, limit: int) -> Sequence[Claim]:
        """Takes what is due, `limit` at most and no more than there are slots for, each with its slot in the quota."""
        async with self._database.write() as tx:
            room = (_FARTHEST_SLOT - await self._quota.wait(tx, ACCOUNT)) // self._interval + 1
            limit = max(min(limit, room), 0)
            claimed = await self._queue.claim(tx, now=self._clock(), lease=LEASE, limit=limit)
            if not claimed:
                return []
            slot = await self._quota.reserve(tx, ACCOUNT, interval=self._interval, slots=len(claimed))
        seconds = self._interval.total_seconds()
        return [Claim(verification, slot + place * seconds) for place, verification in enumerate(claimed)]

    async def renew(self, claims: Collection[Claim]) -> None:
        """Says that these are still being worked on."""
        async with self._database.write(seconds=_RENEW_SECONDS) as tx:
            await self._queue.renew(tx, [claim.verification for claim in claims], until=self._clock() + LEASE)

    async def hand_back(self, claims: Collection[Claim]) -> None:
        """Gives up claims that will not be worked on: the next worker takes them at once."""
        async with self._database.write() as tx:
            await self._queue.hand_back(tx, [claim.verification for claim in claims], now=self._clock())

    async def retrieve(self, claim: Claim) -> None:
        """Makes the call and records what came of it.

        Raises:
            UnavailableError: the database failed; the lease runs out, and the verification comes due again.
        """
        await self._wait_for(claim.slot)
        verification = claim.verification
        with ExitStack() as drafts:
            fetched = await self._faceid.get_detect_info(
                biz_token=verification.biz_token,
                rule_id=verification.rule_id,
                info_type=self._info_type,
                open_sink=lambda: drafts.enter_context(self._media.draft()),
            )
            await self._conclude(verification, fetched)

    async def _conclude(self, verification: Verification, fetched: Fetched) -> None:
        call = fetched.call
        step = self._decide(verification, self._reply(fetched))
        media: Sequence[Medium] = ()
        if isinstance(step, Store):
            try:
                async with asyncio.timeout(_PUT_SECONDS):
                    media = await self._put(cast("Mapping[MediaKind, Draft]", fetched.media))  # the sinks we opened
            except (UnavailableError, TimeoutError):
                call = replace(call, error_code=MEDIA_NOT_STORED)
                step = self._decide(verification, Trouble(ErrorClass.RETRY))
        _tell(verification, step, call)
        outdated = await self._record(verification, step, call, fetched, media)
        self._signals.send(str(verification.id))
        for key in outdated:
            await self._media.delete(key)

    def _reply(self, fetched: Fetched) -> Reply:
        if fetched.call.error_code:
            return Trouble(classify(fetched.call.error_code))
        if fetched.detection:
            return Found(fetched.detection.outcome)
        text_was_asked = Part.TEXT in self._info_type.parts
        return Found(None if fetched.media and not text_was_asked else Outcome.UNFINISHED)

    def _decide(self, verification: Verification, reply: Reply) -> Step:
        return decide(verification, reply, self._clock(), jitter=_RANDOM.random())

    async def _put(self, sinks: Mapping[MediaKind, Draft]) -> Sequence[Medium]:
        """Bytes first: when the rows name the media, they are there. All at once: each waits for the disk by itself."""
        puts = [self._put_one(kind, draft) for kind, draft in sinks.items()]
        done = await asyncio.gather(*puts, return_exceptions=True)
        for outcome in done:
            if isinstance(outcome, BaseException):
                raise outcome
        return cast("Sequence[Medium]", done)

    async def _put_one(self, kind: MediaKind, draft: Draft) -> Medium:
        return Medium(
            kind=kind,
            content_type=sniff(draft.head),
            size_bytes=draft.size_bytes,
            sha256=draft.sha256,
            object_key=await self._media.put(draft),
            stored_at=self._clock(),
        )

    async def _record(
        self, claimed: Verification, step: Step, call: Call, fetched: Fetched, media: Sequence[Medium]
    ) -> Collection[str]:
        """Writes all that was learned, unless a newer claim is at work; answers the object keys that nothing names."""
        async with self._database.write() as tx:
            current = await self._verifications.lock(tx, claimed.biz_token)  # before the quota's row, as a claim does
            await self._results.add_call(tx, claimed.id, call)
            if classify(call.error_code or "") is ErrorClass.SLOW_DOWN:
                await self._quota.slow_down(tx, ACCOUNT, pause=_PAUSE)
            if current is None or current.claim != claimed.claim:
                return [medium.object_key for medium in media]
            await self._verifications.save(tx, current, lifecycle.after(current, step, call, self._clock()))
            if not isinstance(step, Store):
                return []
            if fetched.detection:
                await self._results.replace_detection(tx, claimed.id, fetched.detection)
            return await self._results.replace_media(tx, claimed.id, media)

    async def _wait_for(self, slot: float) -> None:
        for _ in range(_SLOT_TRIES):
            await asyncio.sleep(slot - time.monotonic())
            if time.monotonic() - slot <= _MOST_LATE_SECONDS:
                return
            async with self._database.write() as tx:
                slot = await self._quota.reserve(tx, ACCOUNT, interval=self._interval, slots=1)
        await asyncio.sleep(slot - time.monotonic())


def _tell(verification: Verification, step: Step, call: Call) -> None:
    name = type(step).__name__
    log.info("retrieved", verification=verification.id, step=name, error_code=call.error_code)
    STEPS.labels(name).inc()
    result = classify(call.error_code) if call.error_code else "answered"
    CALL_SECONDS.labels(call.action, result).observe(call.duration_ms / 1000)
    RECEIVED_BYTES.labels(call.action).inc(call.bytes_received)
