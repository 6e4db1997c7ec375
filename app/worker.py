"""The loops that work by themselves: retrieve what is due, sweep what nothing names.

Inside `serve` or alone, any number of them: they meet in the database only.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress

import structlog

from app.errors import ServiceError
from app.factory import Services, open_accounts, reconciliation, retrieval
from app.observability import where
from app.services.audit import AuditService
from app.services.claim import Claim
from app.services.erase import EraseService
from app.services.health import HealthService
from app.services.reconcile import ReconcileService
from app.services.retrieve import RetrieveService
from app.services.sweep import SweepService
from app.storage.signals import DUE, Signals

POLL_SECONDS = 1.0  # wake-ups are hints; retries and polls come due without one
RENEW_SECONDS = 4.0  # a third of a lease: two renewals may fail
SWEEP_SECONDS = 3600.0
ALARM_SECONDS = 60.0
RECONCILE_SECONDS = 60.0  # most times nothing is to be read
GRACE_SECONDS = 20.0  # for what is in flight when the worker stops; a container is killed after 30

_FAILED = object()

log = structlog.get_logger()


class Worker:
    """Runs until it is stopped; what is in flight then is finished or handed back."""

    def __init__(
        self,
        retrieve: RetrieveService,
        sweep: SweepService,
        health: HealthService,
        erase: EraseService,
        audit: AuditService,
        signals: Signals,
        *,
        reconcile: ReconcileService | None = None,
        concurrency: int,
        grace_seconds: float = GRACE_SECONDS,
        renew_seconds: float = RENEW_SECONDS,
    ) -> None:
        self._retrieve = retrieve
        self._sweep = sweep
        self._health = health
        self._erase = erase
        self._audit = audit
        self._reconcile = reconcile
        self._signals = signals
        self._concurrency = concurrency
        self._grace_seconds = grace_seconds
        self._renew_seconds = renew_seconds
        self._in_flight: dict[asyncio.Task[None], Claim] = {}
        self._is_full = False
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Lets `run` come to its end."""
        self._stopping.set()

    async def run(self) -> None:
        """Works until `stop`."""
        log.info("worker_started", concurrency=self._concurrency)
        await self._guarded(self._retrieve.claims.adopt)
        beside = [asyncio.create_task(loop) for loop in self._loops()]
        try:
            await self._retrieve_until_stopped()
            await self._finish()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        log.info("worker_stopped")

    def _loops(self) -> Sequence[Coroutine[None, None, None]]:
        chores: list[tuple[Callable[[], Awaitable[object]], float]] = [
            (self._sweep.sweep, SWEEP_SECONDS),
            (self._health.count_persons, SWEEP_SECONDS),
            (self._health.alarm, ALARM_SECONDS),
            (self._erase.sweep, ALARM_SECONDS),
            (self._audit.seal, ALARM_SECONDS),
        ]
        if self._reconcile:
            chores.append((self._reconcile.reconcile, RECONCILE_SECONDS))
        return [self._renew_for_ever(), *(self._for_ever(chore, seconds) for chore, seconds in chores)]

    async def _retrieve_until_stopped(self) -> None:
        with self._signals.subscribed(DUE) as wake:
            stop = asyncio.create_task(self._wake_on_stop(wake), name="stop")
            while not self._stopping.is_set():
                wake.clear()
                await self._guarded(lambda: self._claim(wake))
                with suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), POLL_SECONDS)
            await stop

    async def _wake_on_stop(self, wake: asyncio.Event) -> None:
        await self._stopping.wait()
        wake.set()

    async def _claim(self, wake: asyncio.Event) -> None:
        """Starts what is due. Where as much is under way as may be, the first that ends makes room for more."""
        self._is_full = True  # what ends while we ask has made room for more
        under_way = Counter(claim.account.name for claim in self._in_flight.values())
        for claim in await self._retrieve.claims.take(self._concurrency, held=self._in_flight.values()):
            under_way[claim.account.name] += 1
            task = asyncio.create_task(self._retrieve_one(claim), name="retrieve")
            self._in_flight[task] = claim
            task.add_done_callback(self._in_flight.pop)
            task.add_done_callback(lambda _: wake.set() if self._is_full else None)
        self._is_full = max(under_way.values(), default=0) >= self._concurrency

    async def _retrieve_one(self, claim: Claim) -> None:
        if await self._guarded(lambda: self._retrieve.retrieve(claim)) is _FAILED:
            await self._guarded(lambda: self._retrieve.put_off(claim))

    async def _finish(self) -> None:
        if not self._in_flight:
            return
        _, late = await asyncio.wait(self._in_flight, timeout=self._grace_seconds)
        claims = [self._in_flight[task] for task in late]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        await self._guarded(lambda: self._retrieve.claims.hand_back(claims))

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._renew_seconds)
            if self._in_flight:
                await self._guarded(lambda: self._retrieve.claims.renew(list(self._in_flight.values())))

    async def _for_ever(self, work: Callable[[], Awaitable[object]], seconds: float) -> None:
        while True:
            await self._guarded(work)
            await asyncio.sleep(seconds)

    async def _guarded(self, work: Callable[[], Awaitable[object]]) -> object:
        """What one piece of work answers; its failure is logged and ends neither the loop nor the other pieces."""
        try:
            return await work()
        except (ServiceError, OSError) as error:
            log.warning("work_failed", error=type(error).__name__, where=where(error.__traceback__))
        except Exception as error:
            log.error("work_crashed", error=type(error).__name__, where=where(error.__traceback__))
        return _FAILED


@asynccontextmanager
async def working(services: Services) -> AsyncIterator[Worker]:
    """A worker that runs while the block does."""
    settings = services.settings
    async with open_accounts(settings) as accounts:
        worker = Worker(
            retrieval(services, accounts),
            services.sweep,
            services.health,
            services.erase,
            services.audit,
            services.signals,
            reconcile=reconciliation(services, accounts) if settings.faceid_reconcile else None,
            concurrency=settings.worker_concurrency,
        )
        task = asyncio.create_task(worker.run(), name="worker")
        try:
            yield worker
        finally:
            worker.stop()
            await task
