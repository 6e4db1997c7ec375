"""Step 2 of the story: claims due verifications per account, limited by the account's quota and its pauses."""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.domain.decision import LAST_TRY, LONGEST_STEP
from app.domain.pause import Pause, has_due_probe, next_probe_at
from app.domain.rule import DEFAULT_ACCOUNT
from app.domain.turns import Turn, in_order
from app.domain.verification import Verification
from app.faceid.client import FaceIdClient
from app.services.clock import ClockService
from app.services.media_guard import MediaGuard
from app.services.rule_settings import RulesSettings
from app.storage.database import Database, Transaction
from app.storage.queue import Due

LEASE = timedelta(seconds=15)
"""Renewed while the worker lives. The claims of a dead worker come due after it."""

# Verifications that would have to wait longer stay due, for any worker.
_FARTHEST_SLOT = timedelta(seconds=2.5)
# Leaves time for another renewal if one hangs.
_RENEW_TIMEOUT_SECONDS = 3.0
# A slot that is used later than this comes too close to the next one.
_MAX_LATE_SECONDS = 0.02
# Of an account's calls, at most one in so many probes a pause.
_CALLS_PER_PROBE = 20
# The prefix of the quota's row for probes. No account is named like that.
_PROBES = "probes:"
# A machine that is always late proceeds all the same.
_SLOT_TRIES = 2


@dataclass(frozen=True, slots=True)
class Account:
    """A Tencent account: its client, and the interval between its calls."""

    name: str
    faceid: FaceIdClient
    interval: timedelta


@dataclass(frozen=True, slots=True)
class Claim:
    """A verification claimed for a lease. Its call may be made at `slot` (monotonic).

    `probe`: the pause that the call checks.
    """

    verification: Verification
    account: Account
    slot: float
    probe: Pause | None = None


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class ClaimService:
    """Takes claims, renews them, and hands them back."""

    accounts: Collection[Account]
    rules: RulesSettings
    database: Database
    clocks: ClockService
    media_guard: MediaGuard
    _claims: Counter[str] = field(init=False, default_factory=Counter)

    async def adopt(self) -> None:
        """Moves what waits for accounts that are no longer configured to the default account."""
        async with self.database.write() as tx:
            await tx.queue.adopt([account.name for account in self.accounts], adopter=DEFAULT_ACCOUNT)

    async def bring_forward(self) -> None:
        """Makes verifications due that a wrong clock has scheduled further ahead than any step lies."""
        if self.clocks.is_trusted:
            now = self.clocks.clock()
            async with self.database.write() as tx:
                names = [account.name for account in self.accounts]
                await tx.queue.bring_forward(names, now=now, farthest=now + LONGEST_STEP)

    async def take(self, limit: int, *, held: Collection[Claim] = ()) -> Sequence[Claim]:
        """Claims due verifications, as many as there are slots in the quota.

        Claims nothing while media cannot be stored, and nothing while the clock is in doubt: Tencent would reject the
        signatures, and the leases would end at a wrong time.

        Args:
            limit: how many claims the worker wants to hold per account, so no account blocks another.
            held: the claims that it holds already.
        """
        claims: list[Claim] = []
        if not self.clocks.is_trusted or not await self.media_guard.is_ready():
            return claims
        for account in self.accounts:
            free = limit - sum(claim.account is account for claim in held)
            claims += await self._take_for(account, free) if free > 0 else []
        return claims

    async def renew(self, claims: Collection[Claim]) -> None:
        """Extends the leases."""
        async with self.database.write(seconds=_RENEW_TIMEOUT_SECONDS) as tx:
            await tx.queue.renew([claim.verification for claim in claims], until=self.clocks.clock() + LEASE)

    async def hand_back(self, claims: Collection[Claim]) -> None:
        """Releases claims, so the next worker takes them at once."""
        async with self.database.write() as tx:
            await tx.queue.hand_back([claim.verification for claim in claims], now=self.clocks.clock())

    async def until_slot(self, claim: Claim) -> None:
        """Waits until the call may be made. Reserves another slot if the first was missed."""
        slot = claim.slot
        for _ in range(_SLOT_TRIES):
            await asyncio.sleep(slot - time.monotonic())
            if time.monotonic() - slot <= _MAX_LATE_SECONDS:
                return
            async with self.database.write() as tx:
                slot = await tx.quota.reserve(claim.account.name, interval=claim.account.interval, slots=1)
        await asyncio.sleep(slot - time.monotonic())

    async def _take_for(self, account: Account, limit: int) -> Sequence[Claim]:
        async with self.database.write() as tx:
            free_slots = (_FARTHEST_SLOT - await tx.quota.wait(account.name)) // account.interval + 1
            if (limit := min(limit, free_slots)) <= 0:
                return []
            taken = await self._keep_own(tx, account.name, await self._take_due(tx, account, limit))
            if not taken:
                return []
            slot = await tx.quota.reserve(account.name, interval=account.interval, slots=len(taken))
        seconds = account.interval.total_seconds()
        return [
            Claim(verification, account, slot + place * seconds, probe)
            for place, (verification, probe) in enumerate(taken.items())
        ]

    async def _take_due(self, tx: Transaction, account: Account, limit: int) -> dict[Verification, Pause | None]:
        """Claims due verifications, by turns of the clients. A claim that probes a pause carries it, and comes last."""
        now = self.clocks.clock()
        if not (due := await tx.queue.turns(account.name, now)):
            return {}
        self._claims[account.name] += 1
        turns = in_order(due, self._claims[account.name])
        pauses = await tx.pauses.list(account.name)
        probes = await self._take_probe(tx, account, pauses, turns, now)
        wanted = Due(
            account=account.name,
            now=now,
            last_deadline=now + LAST_TRY,
            is_paused=any(pause.rule_id is None for pause in pauses),
            paused_rule_ids=[pause.rule_id for pause in pauses if pause.rule_id],
        )
        claimed = await tx.queue.claim(wanted, turns, lease=LEASE, limit=limit - len(probes))
        return dict.fromkeys(claimed) | probes

    async def _take_probe(
        self,
        tx: Transaction,
        account: Account,
        pauses: Sequence[Pause],
        turns: Sequence[Sequence[Turn]],
        now: datetime,
    ) -> dict[Verification, Pause | None]:
        """Claims one verification to check whether a pause can end. The pause that was to be probed first has its turn.

        However many pauses there are, probes use a twentieth of the quota.
        """
        row = _PROBES + account.name
        waiting = sorted((pause for pause in pauses if has_due_probe(pause, now)), key=lambda pause: pause.probe_at)
        if not waiting or await tx.quota.wait(row):
            return {}
        for pause in waiting:
            due = Due(account=pause.account, now=now, last_deadline=now, rule_id=pause.rule_id)
            if found := await tx.queue.claim(due, turns, lease=LEASE, limit=1):
                if await tx.pauses.take_probe(pause, next_at=next_probe_at(pause, now)):
                    await tx.quota.reserve(row, interval=account.interval * _CALLS_PER_PROBE, slots=1)
                    return dict.fromkeys(found, pause)
                # Another worker probes it.
                await tx.queue.hand_back(found, now=now)
        return {}

    async def _keep_own(
        self, tx: Transaction, account: str, taken: dict[Verification, Pause | None]
    ) -> dict[Verification, Pause | None]:
        """Moves verifications whose rule belongs to another account, since the settings of rules may change."""
        owners = {verification: self.rules.rule(verification.rule_id).account for verification in taken}
        for owner in set(owners.values()) - {account}:
            moved = [verification for verification, name in owners.items() if name == owner]
            await tx.queue.hand_back(moved, now=self.clocks.clock(), account=owner)
        return {verification: probe for verification, probe in taken.items() if owners[verification] == account}
