"""Reads the figures of the metrics. They come from the database, so every process shows the same ones.

Each read is bounded, however many rows there are: see the limits in the descriptions of the metrics.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import nan
from pathlib import Path

from app.domain.statistics import COUNT_LIMIT
from app.domain.webhook_endpoint import EndpointState
from app.observability import (
    ACCOUNT_QUOTA_USED,
    CLOCK_IN_DOUBT,
    DELIVERIES_WAITING,
    DELIVERY_OLDEST,
    DISK_FREE,
    DISK_RESERVE,
    DUE_OLDEST,
    ERASURE_STOPPED,
    EXPIRING_KEYS,
    FIRST_DEADLINE,
    KEY_EXPIRES,
    MEASURED_AT,
    PAUSED,
    PAUSES,
    PENDING,
    PENDING_OLDEST,
    PENDING_RETRIEVALS,
    QUOTA_USED,
    WEBHOOK_ENDPOINTS,
    WORKERS_SEEN,
)
from app.services.health import Condition, HealthService
from app.services.media_guard import space_of
from app.services.workers import SEEN_WITHIN
from app.storage.database import Database, Transaction
from app.storage.quota import MINUTE


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class GaugeService:
    """Sets the gauges of this process. `rates` are the allowed calls per second of each account of Tencent."""

    database: Database
    health: HealthService
    clock: Callable[[], datetime]
    rates: Mapping[str, float]
    folders: Mapping[str, Path]

    async def refresh(self) -> None:
        """Reads and sets all gauges. For each scrape, and a chore of workers.

        Raises:
            UnavailableError: the database does not answer, or a disk cannot be read.
        """
        for name, folder in self.folders.items():
            space = space_of(folder)
            DISK_FREE.labels(name).set(space.free_bytes)
            DISK_RESERVE.labels(name).set(space.reserve_bytes)
        condition = await self.health.measure()
        async with self.database.read() as tx:
            await self._set_retrieval(tx)
            await self._set_deliveries(tx, condition.endpoints)
        _set_condition(condition)
        MEASURED_AT.set(time.time())

    async def _set_retrieval(self, tx: Transaction) -> None:
        now = self.clock()
        oldest, first = await tx.statistics.oldest_pending(None), await tx.verifications.first_deadline()
        dues = [await tx.queue.oldest_due_at(account, now) for account in self.rates]
        used = await tx.quota.used(self.rates)
        PENDING_RETRIEVALS.set(await tx.statistics.count_pending(None, limit=COUNT_LIMIT))
        PENDING_OLDEST.set(_seconds(now, oldest.born_at if oldest and not oldest.is_malformed else None))
        FIRST_DEADLINE.set((first - now).total_seconds() if first else nan)
        DUE_OLDEST.set(_seconds(now, min((due for due in dues if due), default=None)))
        shares = {account: used[account] / (rate * MINUTE.total_seconds()) for account, rate in self.rates.items()}
        for account, share in shares.items():
            ACCOUNT_QUOTA_USED.labels(account).set(share)
        QUOTA_USED.set(max(shares.values()))
        WORKERS_SEEN.set(await tx.workers.count_seen(now - SEEN_WITHIN))

    async def _set_deliveries(self, tx: Transaction, endpoints: Mapping[EndpointState, int]) -> None:
        now = self.clock()
        share = COUNT_LIMIT // max(sum(endpoints.values()), 1)
        waiting = await tx.delivery_log.count_waiting(at_most=max(share, 1))
        for state in EndpointState:
            WEBHOOK_ENDPOINTS.labels(state).set(endpoints.get(state, 0))
            DELIVERIES_WAITING.labels(state).set(waiting.get(state, 0))
        DELIVERY_OLDEST.set(_seconds(now, await tx.delivery_log.oldest_due_at(now)))


def _set_condition(condition: Condition) -> None:
    PAUSES.set(len(condition.pauses))
    PAUSED.clear()
    for pause in condition.pauses:
        PAUSED.labels(pause.account, pause.rule_id or "", pause.error_code).set(1)
    for hours, count in condition.pending.items():
        PENDING.labels(hours).set(count)
    EXPIRING_KEYS.set(len(condition.expiring_keys))
    KEY_EXPIRES.clear()
    for key in condition.expiring_keys:
        KEY_EXPIRES.labels(key.id, key.name).set(key.expires_at.timestamp())
    CLOCK_IN_DOUBT.set(condition.doubted_since is not None)
    ERASURE_STOPPED.set(condition.erasure_stopped_at is not None)


def _seconds(now: datetime, since: datetime | None) -> float:
    return (now - since).total_seconds() if since else 0
