"""Step 2 of the story: a worker takes what is due, account by account, within each one's quota and past no pause."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.decision import LAST_TRY
from app.domain.pause import Pause, next_probe_at
from app.domain.rule import DEFAULT_ACCOUNT
from app.domain.verification import Verification
from app.faceid.client import FaceIdClient
from app.services.rules import RulesSettings
from app.storage.database import Database, Transaction
from app.storage.pauses import PauseStore
from app.storage.queue import Due, Queue
from app.storage.quota import QuotaStore

LEASE = timedelta(seconds=15)  # renewed while the worker lives; what a dead one held comes due after it

_FARTHEST_SLOT = timedelta(seconds=2.5)  # what would have to wait longer stays due, for whoever comes first
_RENEW_SECONDS = 3.0  # a renewal that hangs leaves time for another
_MOST_LATE_SECONDS = 0.02  # a slot used later than this crowds its successors
_SLOT_TRIES = 2  # a machine that is always late goes on all the same


@dataclass(frozen=True, slots=True)
class Account:
    """A Tencent account: its client, and how far its calls lie apart."""

    name: str
    faceid: FaceIdClient
    interval: timedelta


@dataclass(frozen=True, slots=True)
class Claim:
    """A verification that is ours for the length of a lease; its call is to be made at `slot` (monotonic).

    Its answer says whether the pause `probe` is over.
    """

    verification: Verification
    account: Account
    slot: float
    probe: Pause | None = None


class ClaimService:
    """Gives out claims, keeps them alive, and takes them back."""

    def __init__(
        self,
        *,
        accounts: Collection[Account],
        rules: RulesSettings,
        database: Database,
        queue: Queue,
        quota: QuotaStore,
        pauses: PauseStore,
        clock: Callable[[], datetime],
    ) -> None:
        self._accounts = accounts
        self._rules = rules
        self._database = database
        self._queue = queue
        self._quota = quota
        self._pauses = pauses
        self._clock = clock

    async def adopt(self) -> None:
        """Takes over what waits for accounts that the settings name no more."""
        async with self._database.write() as tx:
            await self._queue.adopt(tx, [account.name for account in self._accounts], adopter=DEFAULT_ACCOUNT)

    async def take(self, limit: int, *, held: Collection[Claim] = ()) -> Sequence[Claim]:
        """Takes what is due, no more than there are slots for, each with its slot in the quota.

        Args:
            limit: how many claims the caller wants to hold of each account; none keeps the others waiting.
            held: the claims that it holds already.
        """
        claims: list[Claim] = []
        for account in self._accounts:
            free = limit - sum(claim.account is account for claim in held)
            claims += await self._take_of(account, free) if free > 0 else []
        return claims

    async def renew(self, claims: Collection[Claim]) -> None:
        """Says that these are still being worked on."""
        async with self._database.write(seconds=_RENEW_SECONDS) as tx:
            await self._queue.renew(tx, [claim.verification for claim in claims], until=self._clock() + LEASE)

    async def hand_back(self, claims: Collection[Claim]) -> None:
        """Gives up claims that will not be worked on: the next worker takes them at once."""
        async with self._database.write() as tx:
            await self._queue.hand_back(tx, [claim.verification for claim in claims], now=self._clock())

    async def until_slot(self, claim: Claim) -> None:
        """Returns when the call may be made."""
        slot = claim.slot
        for _ in range(_SLOT_TRIES):
            await asyncio.sleep(slot - time.monotonic())
            if time.monotonic() - slot <= _MOST_LATE_SECONDS:
                return
            async with self._database.write() as tx:
                slot = await self._quota.reserve(tx, claim.account.name, interval=claim.account.interval, slots=1)
        await asyncio.sleep(slot - time.monotonic())

    async def _take_of(self, account: Account, limit: int) -> Sequence[Claim]:
        async with self._database.write() as tx:
            room = (_FARTHEST_SLOT - await self._quota.wait(tx, account.name)) // account.interval + 1
            if (limit := min(limit, room)) <= 0:
                return []
            taken = await self._sort_out(tx, account.name, await self._due(tx, account.name, limit))
            if not taken:
                return []
            slot = await self._quota.reserve(tx, account.name, interval=account.interval, slots=len(taken))
        seconds = account.interval.total_seconds()
        return [
            Claim(verification, account, slot + place * seconds, probe)
            for place, (verification, probe) in enumerate(taken.items())
        ]

    async def _due(self, tx: Transaction, account: str, limit: int) -> dict[Verification, Pause | None]:
        now = self._clock()
        pauses = await self._pauses.list(tx, account)
        taken: dict[Verification, Pause | None] = {}
        for pause in pauses:
            if pause.probe_at <= now and len(taken) < limit:
                taken |= dict.fromkeys(await self._probe(tx, pause, now), pause)
        due = Due(
            account=account,
            now=now,
            last_try_before=now + LAST_TRY,
            is_closed=any(pause.rule_id is None for pause in pauses),
            closed_rule_ids=[pause.rule_id for pause in pauses if pause.rule_id],
        )
        claimed = await self._queue.claim(tx, due, lease=LEASE, limit=limit - len(taken))
        return taken | dict.fromkeys(claimed)

    async def _probe(self, tx: Transaction, pause: Pause, now: datetime) -> Sequence[Verification]:
        """One verification to find out with whether the pause is over, if there is one and nobody else does it."""
        due = Due(account=pause.account, now=now, last_try_before=now, rule_id=pause.rule_id)
        found = await self._queue.claim(tx, due, lease=LEASE, limit=1)
        if not found and not await self._queue.has_any(tx, pause.account, pause.rule_id):
            await self._pauses.end(tx, pause)  # nobody waits for it any more; who comes later finds out anew
        if not found or await self._pauses.take_probe(tx, pause, next_at=next_probe_at(pause, now)):
            return found
        await self._queue.hand_back(tx, found, now=now)
        return []

    async def _sort_out(
        self, tx: Transaction, account: str, taken: dict[Verification, Pause | None]
    ) -> dict[Verification, Pause | None]:
        """Moves what belongs to another account: rules change, and whoever took it in may not have known them."""
        owners = {verification: self._rules.rule(verification.rule_id).account for verification in taken}
        for owner in set(owners.values()) - {account}:
            moved = [verification for verification, name in owners.items() if name == owner]
            await self._queue.hand_back(tx, moved, now=self._clock(), account=owner)
        return {verification: probe for verification, probe in taken.items() if owners[verification] == account}
