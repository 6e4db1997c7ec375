"""The bills of GetWeChatBillDetails: which BizTokens were finished on a day, whoever has heard of them."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import count

from app.simulator.answers import ATTEMPTS_OF_A_FAILURE, MS_BETWEEN_ATTEMPTS, Subject, text_of
from app.simulator.requests import BillDetailsRequest, TencentError
from app.simulator.scenarios import Scenario

_CHINA = timezone(timedelta(hours=8))
_READY = timedelta(hours=6)  # the bill of a day is there at this hour of the next
_OLDEST = timedelta(days=365)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """One BizToken that is charged for; `at` is the last try, in seconds since the epoch."""

    subject: Subject
    scenario: Scenario
    rule_id: str
    at: float

    @property
    def day(self) -> date:
        """The day in UTC+8."""
        return _local(self.at).date()


class Bills:
    """The latest `limit` bills. Cursors are their numbers: what comes in between two pages shifts neither."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._numbers = count(1)
        self._bills: OrderedDict[str, tuple[int, Bill]] = OrderedDict()

    def add(self, bill: Bill) -> None:
        """Puts a BizToken on its day's bill, unless it is on one already."""
        self._bills.setdefault(bill.subject.biz_token, (next(self._numbers), bill))
        if len(self._bills) > self._limit:
            self._bills.popitem(last=False)

    def page(self, request: BillDetailsRequest, *, size: int, now: float) -> dict[str, object]:
        """GetWeChatBillDetails' response.

        Raises:
            TencentError: there is no bill of that day, not yet or no more.
        """
        today = _local(now).date()
        if not today - _OLDEST <= request.date < (_local(now) - _READY).date():
            raise TencentError("InvalidParameterValue", "There are bills of 365 days up to yesterday, from 06:00 on.")
        found = [
            (number, bill)
            for number, bill in list(self._bills.values())
            if number > request.cursor and bill.day == request.date and request.rule_id in {"", bill.rule_id}
        ]
        return _page(found[:size], request.cursor, has_next_page=len(found) > size)


def _local(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).astimezone(_CHINA)


def _page(bills: Sequence[tuple[int, Bill]], cursor: int, *, has_next_page: bool) -> dict[str, object]:
    return {
        "HasNextPage": has_next_page,
        "NextCursor": bills[-1][0] if bills else cursor,
        "WeChatBillDetails": [_detail(bill) for _, bill in bills],
    }


def _detail(bill: Bill) -> dict[str, object]:
    charges = [_charge(bill, number) for number in range(ATTEMPTS_OF_A_FAILURE if bill.scenario.err_code else 1)]
    return {
        "BizToken": bill.subject.biz_token,
        "ChargeCount": len(charges),
        "ChargeDetails": charges,
        "RuleId": bill.rule_id,
    }


def _charge(bill: Bill, number: int) -> dict[str, object]:
    """The last but so many; the person is masked as Tencent masks, one character is left."""
    text, person = text_of(bill.subject, bill.scenario), bill.subject.person
    req_time = str(int(bill.at * 1000) - number * MS_BETWEEN_ATTEMPTS)
    return {
        "ReqTime": req_time,
        "Seq": f"{req_time}-{number}",
        "IdCard": f"{person.id_card[0]}{'*' * 16}{person.id_card[-1]}",
        "Idcard": None,
        "Name": "*" * (len(person.name) - 1) + person.name[-1],
        "Sim": text["Sim"],
        "IsNeedCharge": True,
        "ChargeType": "核身",
        "ErrorCode": str(text["ErrCode"]),
        "ErrorMessage": text["ErrMsg"],
    }
