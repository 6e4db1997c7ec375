"""Finds the verifications that nobody told us of: Tencent charged for them, and lists them on the next day.

A bill is read a page at a time; what a page tells and where to go on are on disk in one transaction.
"""

import asyncio
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone

import structlog
from pydantic import BaseModel

from app.domain import lifecycle
from app.domain.verification import SPELLING, Facts, Verification
from app.faceid.decode import BilledToken
from app.faceid.error_codes import advice
from app.services.claim import Account
from app.services.newcomers import Newcomers
from app.services.receive import ReceiveSettings
from app.services.rules import RulesSettings
from app.storage.database import Database
from app.storage.reconciliations import ReconciliationStore
from app.storage.signals import DUE, Signals
from app.storage.verifications import VerificationStore

_CHINA = timezone(timedelta(hours=8))  # the days of Tencent's bills
_READY_AFTER = timedelta(hours=6)  # of the next day
_DAYS = 3  # what is older cannot be retrieved any more
_LEASE = timedelta(minutes=5)  # for one page; also how long a page that failed waits
_PAGE_SECONDS = 0.1  # Tencent allows 20 pages a second

log = structlog.get_logger()


class ReconcileSettings(BaseModel):
    """Whether Tencent's bills are read."""

    faceid_reconcile: bool = False


class ReconcileService:
    """Reads the bills of the rules that the settings name; other rules of an account are somebody else's."""

    def __init__(
        self,
        *,
        accounts: Collection[Account],
        rules: RulesSettings,
        newcomers: Newcomers,
        receive: ReceiveSettings,
        database: Database,
        verifications: VerificationStore,
        reconciliations: ReconciliationStore,
        signals: Signals,
        clock: Callable[[], datetime],
    ) -> None:
        self._accounts = {account.name: account for account in accounts}
        self._rules = rules
        self._newcomers = newcomers
        self._rule_ids = {*rules.rules, *([receive.faceid_rule_id] if receive.faceid_rule_id else [])}
        self._database = database
        self._verifications = verifications
        self._reconciliations = reconciliations
        self._signals = signals
        self._clock = clock

    async def reconcile(self) -> int:
        """Reads what is to be read of the last days' bills; answers how many verifications were unknown.

        Raises:
            UnavailableError: the database does not answer. What was read before is registered.
        """
        found = 0
        for day in self._days():
            for rule_id in sorted(self._rule_ids):
                while (page := await self._read_page(rule_id, day)) is not None:
                    found += page
                    await asyncio.sleep(_PAGE_SECONDS)
        return found

    def _days(self) -> Iterator[date]:
        last = (self._clock() - _READY_AFTER).astimezone(_CHINA).date()
        return (last - timedelta(days=days) for days in range(1, _DAYS + 1))

    async def _read_page(self, rule_id: str, day: date) -> int | None:
        """Reads the next page; answers how many of its verifications were unknown, None if there is no page for us."""
        now = self._clock()
        async with self._database.write() as tx:
            cursor = await self._reconciliations.claim(tx, rule_id, day, now=now, lease=_LEASE)
        if cursor is None:
            return None
        account = self._accounts[self._rules.rule(rule_id).account]
        billed = await account.faceid.get_wechat_bill_details(day=day, rule_id=rule_id, cursor=cursor)
        if code := billed.call.error_code:
            log.warning("bill_unread", account=account.name, rule_id=rule_id, error_code=code, advice=advice(code))
            return None
        return await self._register(rule_id, day, billed.biz_tokens, billed.next_cursor)

    async def _register(self, rule_id: str, day: date, tokens: Sequence[BilledToken], next_cursor: int | None) -> int:
        now = self._clock()
        rows = [self._due(rule_id, token.biz_token, now) for token in tokens if re.fullmatch(SPELLING, token.biz_token)]
        async with self._database.write() as tx:
            new = [await self._verifications.add(tx, row) for row in rows]
            due_at = None if next_cursor is None else now
            await self._reconciliations.go_on(tx, rule_id, day, cursor=next_cursor or 0, due_at=due_at)
        found = sum(row is not None for row in new)
        log.info("bill_read", rule_id=rule_id, found=found, known=len(rows) - found)
        self._signals.send(DUE)
        return found

    def _due(self, rule_id: str, biz_token: str, now: datetime) -> Verification:
        new = self._newcomers.new(biz_token, rule_id, now)
        return replace(lifecycle.registered(new, Facts(), now), due_at=now)  # the person was done yesterday
