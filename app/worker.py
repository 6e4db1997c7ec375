"""The worker: retrieves due verifications, and runs chores at intervals.

It runs inside `serve` or alone, in any number. Workers share only the database.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from app import tasks
from app.errors import ConfigurationError, ServiceError
from app.factory import RetrievalServices, Services, open_retrieval
from app.observability import where
from app.services.claim import Claim
from app.services.clock import CHECK_SECONDS
from app.services.deliver import DeliverService, DeliveryClaim
from app.services.workers import REPORT_SECONDS
from app.storage.wakeups import DELIVERIES, DUE, EVENTS, Wakeups

# Retries and polls come due without a wake-up.
POLL_SECONDS = 1.0
# A quarter of a lease, so two renewals may fail, or one may hang.
RENEW_INTERVAL_SECONDS = 4.0
SWEEP_SECONDS = 3600.0
ALARM_SECONDS = 60.0
# Mostly there is nothing to read.
BILLING_SECONDS = 60.0
# For the retrievals in flight when the worker stops. Most take less than a second, and a longer one is handed back.
# Everything must stop within 15 s, and Postgres stops after the worker.
GRACE_SECONDS = 8.0

_FAILED = object()

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do again and again: at once, then `seconds` after each end, or at a wake-up of the topic."""

    work: Callable[[], Awaitable[object]]
    seconds: float
    topic: str | None = None


class Worker:
    """Runs until it is stopped. Work in flight is then finished or handed back."""

    def __init__(
        self,
        retrieval: RetrievalServices,
        wakeups: Wakeups,
        chores: Sequence[Chore] = (),
        *,
        concurrency: int,
        grace_seconds: float = GRACE_SECONDS,
        renew_seconds: float = RENEW_INTERVAL_SECONDS,
    ) -> None:
        self._claims = retrieval.claims
        self._retrieve = retrieval.retrieve
        self._wakeups = wakeups
        self._chores = chores
        self._concurrency = concurrency
        self._grace_seconds = grace_seconds
        self._renew_seconds = renew_seconds
        self._in_flight: dict[asyncio.Task[None], Claim] = {}
        self._is_full = False
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Makes `run` finish."""
        self._stopping.set()

    async def run(self) -> None:
        """Works until `stop`."""
        log.info("worker_started", concurrency=self._concurrency)
        await guarded(self._claims.adopt)
        repeated = [self._renew_forever(), *map(self._repeat, self._chores)]
        running = [asyncio.create_task(work) for work in repeated]
        try:
            await self._retrieve_until_stopped()
            await self._finish()
        finally:
            await tasks.end(*running)
        log.info("worker_stopped")

    async def _retrieve_until_stopped(self) -> None:
        with self._wakeups.subscribed(DUE) as wake:
            stop = asyncio.create_task(self._wake_on_stop(wake), name="stop")
            while not self._stopping.is_set():
                wake.clear()
                await guarded(lambda: self._claim(wake))
                await tasks.wait_for(wake, POLL_SECONDS)
            await stop

    async def _wake_on_stop(self, wake: asyncio.Event) -> None:
        await self._stopping.wait()
        wake.set()

    async def _claim(self, wake: asyncio.Event) -> None:
        """Starts due retrievals. At full concurrency, the first retrieval that ends wakes the loop."""
        # Set before asking: a retrieval that ends while the claims are taken makes room that they do not fill.
        self._is_full = True
        in_flight = Counter(claim.account.name for claim in self._in_flight.values())
        for claim in await self._claims.take(self._concurrency, held=self._in_flight.values()):
            in_flight[claim.account.name] += 1
            task = asyncio.create_task(self._retrieve_one(claim), name="retrieve")
            self._in_flight[task] = claim
            task.add_done_callback(self._in_flight.pop)
            task.add_done_callback(lambda _: wake.set() if self._is_full else None)
        self._is_full = max(in_flight.values(), default=0) >= self._concurrency

    async def _retrieve_one(self, claim: Claim) -> None:
        if await guarded(lambda: self._retrieve.retrieve(claim)) is _FAILED:
            await guarded(lambda: self._retrieve.put_off(claim))

    async def _finish(self) -> None:
        if not self._in_flight:
            return
        _, late = await asyncio.wait(self._in_flight, timeout=self._grace_seconds)
        claims = [self._in_flight[task] for task in late]
        await tasks.end(*late)
        await guarded(lambda: self._claims.hand_back(claims))

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._renew_seconds)
            if self._in_flight:
                await guarded(lambda: self._claims.renew(list(self._in_flight.values())))

    async def _repeat(self, chore: Chore) -> None:
        if chore.topic is None:
            while True:
                await guarded(chore.work)
                await asyncio.sleep(chore.seconds)
        with self._wakeups.subscribed(chore.topic) as wake:
            while True:
                wake.clear()
                await guarded(chore.work)
                await tasks.wait_for(wake, chore.seconds)


async def guarded(work: Callable[[], Awaitable[object]]) -> object:
    """Returns the result of one piece of work. A failure is logged and stops neither the loop nor other work."""
    try:
        return await work()
    except (ServiceError, OSError) as error:
        # Its sentence names settings, never their values.
        cause = {"cause": error.detail} if isinstance(error, ConfigurationError) else {}
        log.warning("work_failed", error=type(error).__name__, where=where(error.__traceback__), **cause)
    except Exception as error:
        log.error("work_crashed", error=type(error).__name__, where=where(error.__traceback__))
    return _FAILED


class DeliveryLoop:
    """Sends due deliveries until it is stopped. An endpoint that hangs holds few of the places."""

    def __init__(self, deliver: DeliverService, wakeups: Wakeups, *, concurrency: int) -> None:
        self._deliver = deliver
        self._wakeups = wakeups
        self._concurrency = concurrency
        self._in_flight: dict[asyncio.Task[object], DeliveryClaim] = {}
        self._is_stopping = False
        self._wake = asyncio.Event()

    def stop(self) -> None:
        """Makes `run` finish."""
        self._is_stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Works until `stop`. Deliveries in flight are then finished or handed back."""
        with self._wakeups.subscribed(DELIVERIES) as self._wake:
            while not self._is_stopping:
                self._wake.clear()
                await guarded(self._claim)
                await tasks.wait_for(self._wake, POLL_SECONDS)
        if self._in_flight:
            _, late = await asyncio.wait(self._in_flight, timeout=GRACE_SECONDS)
            claims = [self._in_flight[task] for task in late]
            await tasks.end(*late)
            await guarded(lambda: self._deliver.hand_back(claims))

    async def _claim(self) -> None:
        for claim in await self._deliver.take(self._concurrency - len(self._in_flight)):
            task = asyncio.create_task(self._deliver_one(claim), name="deliver")
            self._in_flight[task] = claim
            task.add_done_callback(self._in_flight.pop)
            # The next delivery of the endpoint, or of the verification, can be claimed.
            task.add_done_callback(lambda _: self._wake.set())

    async def _deliver_one(self, claim: DeliveryClaim) -> object:
        return await guarded(lambda: self._deliver.deliver(claim))


@asynccontextmanager
async def working(services: Services) -> AsyncIterator[Worker]:
    """Runs a worker during the block."""
    await services.media_guard.confirm_owner()
    async with open_retrieval(services) as retrieval:
        worker = Worker(
            retrieval,
            services.wakeups,
            _chores(services, retrieval),
            concurrency=services.settings.process.worker_concurrency,
        )
        deliveries = DeliveryLoop(
            services.deliver, services.wakeups, concurrency=services.settings.webhooks.webhook_concurrency
        )
        task = asyncio.create_task(worker.run(), name="worker")
        delivering = asyncio.create_task(deliveries.run(), name="deliveries")
        try:
            yield worker
        finally:
            worker.stop()
            deliveries.stop()
            await asyncio.wait([task, delivering])
            await task
            await delivering
            await guarded(services.workers.leave)


def _chores(services: Services, retrieval: RetrievalServices) -> Sequence[Chore]:
    async def keep_time() -> None:
        was_trusted = services.clocks.is_trusted
        await services.clocks.check()
        if services.clocks.is_trusted and not was_trusted:
            services.wakeups.send(DUE)
        await retrieval.claims.bring_forward()

    chores = [
        Chore(keep_time, CHECK_SECONDS),
        Chore(services.outbox.sequence, POLL_SECONDS, EVENTS),
        Chore(services.outbox.announce_deadlines, ALARM_SECONDS),
        Chore(services.outbox.remove_old, SWEEP_SECONDS),
        Chore(services.deliver.remove_old_answers, SWEEP_SECONDS),
        Chore(services.counts.collect, ALARM_SECONDS),
        Chore(services.orphans.sweep, SWEEP_SECONDS),
        Chore(services.health.count_persons, SWEEP_SECONDS),
        Chore(services.health.alarm, ALARM_SECONDS),
        Chore(services.gauges.refresh, REPORT_SECONDS),
        Chore(services.workers.report, REPORT_SECONDS),
        Chore(services.erase.erase_expired, ALARM_SECONDS),
        Chore(services.audit.link, ALARM_SECONDS),
        Chore(retrieval.pauses.settle, ALARM_SECONDS),
    ]
    if services.settings.billing.faceid_reconcile:
        chores.append(Chore(retrieval.billing.reconcile, BILLING_SECONDS))
    return chores
