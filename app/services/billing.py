"""Finds verifications that were never reported: Tencent charged for them, and lists them in the next day's bill.

A bill is read page by page. The tokens of a page and the position of the next one are stored in one transaction.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta, timezone
from functools import partial

import structlog
from pydantic import BaseModel

from app.domain import lifecycle
from app.domain.verification import BIZ_TOKEN_PATTERN
from app.faceid.decode import Bill
from app.faceid.error_codes import advice
from app.services.claim import Account
from app.services.clock import ClockService
from app.services.intake import Accepted, IntakeService, Notice
from app.services.rule_settings import RulesSettings
from app.storage.database import Database
from app.storage.wakeups import DUE, Wakeups

# The days of Tencent's bills.
_CHINA = timezone(timedelta(hours=8))
# A bill is ready at this time of the next day.
_READY_AFTER = timedelta(hours=6)
# Older results are no longer available.
_DAYS = 3
# For one page; also how long a failed page waits.
_LEASE = timedelta(minutes=5)
# Tencent allows 20 pages per second.
_PAGE_SECONDS = 0.1

log = structlog.get_logger()


class BillingSettings(BaseModel):
    """Whether Tencent's bills are read."""

    faceid_reconcile: bool = False


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class BillingService:
    """Reads the bills of the rules that the settings name. Other rules of an account belong to other services."""

    accounts: Mapping[str, Account]
    rules: RulesSettings
    intake: IntakeService
    database: Database
    wakeups: Wakeups
    clocks: ClockService

    async def reconcile(self) -> int:
        """Reads the unread bills of the last days; returns how many verifications were unknown.

        Reads nothing while the clock is in doubt: the bill of a day that is not over would count as complete.

        Raises:
            UnavailableError: the database does not answer. The tokens of earlier pages are registered.
        """
        if not self.clocks.is_trusted:
            return 0
        found = 0
        for day in self._days():
            for rule_id in sorted(self.rules.known_rule_ids):
                while (new := await self._read_page(rule_id, day)) is not None:
                    found += new
                    await asyncio.sleep(_PAGE_SECONDS)
        return found

    def _days(self) -> Iterator[date]:
        last = (self.clocks.clock() - _READY_AFTER).astimezone(_CHINA).date()
        return (last - timedelta(days=days) for days in range(1, _DAYS + 1))

    async def _read_page(self, rule_id: str, day: date) -> int | None:
        """Reads the next page; returns how many of its verifications were unknown, None if there is nothing to read."""
        async with self.database.write() as tx:
            cursor = await tx.billing.claim(rule_id, day, now=self.clocks.clock(), lease=_LEASE)
        if cursor is None:
            return None
        account = self.accounts[self.rules.rule(rule_id).account]
        page = await account.faceid.get_wechat_bill_details(day=day, rule_id=rule_id, cursor=cursor)
        if code := page.call.error_code:
            log.warning("bill_unread", account=account.name, rule_id=rule_id, error_code=code, advice=advice(code))
            return None
        return await self._register(rule_id, day, page.bill)

    async def _register(self, rule_id: str, day: date, bill: Bill) -> int:
        now = self.clocks.clock()
        change = partial(lifecycle.billed, now=now)
        biz_tokens = [one.biz_token for one in bill.biz_tokens if re.fullmatch(BIZ_TOKEN_PATTERN, one.biz_token)]
        async with self.database.write() as tx:
            clients: dict[str, list[str]] = {}
            for row in await tx.verifications.find_all(biz_tokens):
                clients.setdefault(row.biz_token, []).append(row.client)
            # The bill also corrects known verifications, of any client, whose rule was only assumed.
            notices = [
                Notice(
                    biz_token=biz_token,
                    client=client,
                    rule_id=rule_id,
                    at=now,
                    change=change,
                    may_use_every_rule=True,
                )
                for biz_token in biz_tokens
                for client in clients.get(biz_token, [self.rules.rule(rule_id).client])
            ]
            results = await self.intake.accept_all(tx, notices)
            due_at = None if bill.next_cursor is None else now
            await tx.billing.save_progress(rule_id, day, cursor=bill.next_cursor or 0, due_at=due_at)
        accepted = [result for result in results if isinstance(result, Accepted)]
        found = sum(result.is_new for result in accepted)
        log.info("bill_read", rule_id=rule_id, found=found, known=len(accepted) - found)
        if rejected := bill.malformed + len(bill.biz_tokens) - len(biz_tokens) + len(results) - len(accepted):
            log.warning("bill_rows_rejected", rule_id=rule_id, count=rejected)
        self.wakeups.send(DUE)
        return found
