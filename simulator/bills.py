"""Answers of GetWeChatBillDetails: the verifications that were charged on a day."""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import count

from simulator.answers import ATTEMPTS_OF_A_FAILURE, MS_BETWEEN_ATTEMPTS, Subject, text_of
from simulator.requests import BillDetailsRequest, TencentError
from simulator.scenarios import Scenario

_CHINA = timezone(timedelta(hours=8))
# The bill of a day is available from 06:00 of the next day.
_READY = timedelta(hours=6)
_OLDEST = timedelta(days=365)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """The charges of one BizToken. `at` is the last attempt, in seconds since the epoch."""

    subject: Subject
    scenario: Scenario
    rule_id: str
    at: float

    @property
    def day(self) -> date:
        """The day in UTC+8."""
        return _china_time(self.at).date()


class Bills:
    """The latest `limit` bills. A cursor is the number of a bill, so bills added between two pages move nothing."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._numbers = count(1)
        self._bills: OrderedDict[str, tuple[int, Bill]] = OrderedDict()

    def add(self, bill: Bill) -> None:
        """Adds a bill, unless its BizToken has one already."""
        self._bills.setdefault(bill.subject.biz_token, (next(self._numbers), bill))
        if len(self._bills) > self._limit:
            self._bills.popitem(last=False)

    def page(self, request: BillDetailsRequest, *, size: int, now: float) -> dict[str, object]:
        """Returns GetWeChatBillDetails' response.

        Raises:
            TencentError: the bill of that day is not available yet or any more.
        """
        local = _china_time(now)
        if not local.date() - _OLDEST <= request.date < (local - _READY).date():
            raise TencentError(
                "InvalidParameterValue", "Bills are available from 06:00 (UTC+8) of the next day on, for 365 days."
            )
        # A copy, because other threads may add bills.
        found = [
            (number, bill)
            for number, bill in list(self._bills.values())
            if number > request.cursor and bill.day == request.date and request.rule_id in {"", bill.rule_id}
        ]
        shown = found[:size]
        return {
            "HasNextPage": len(found) > size,
            "NextCursor": shown[-1][0] if shown else request.cursor,
            "WeChatBillDetails": [_detail(bill) for _, bill in shown],
        }


def _china_time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).astimezone(_CHINA)


def _detail(bill: Bill) -> dict[str, object]:
    """Returns a bill with one charge for each attempt, the last attempt first."""
    attempts = ATTEMPTS_OF_A_FAILURE if bill.scenario.err_code else 1
    return {
        "BizToken": bill.subject.biz_token,
        "ChargeCount": attempts,
        "ChargeDetails": [_charge(bill, number) for number in range(attempts)],
        "RuleId": bill.rule_id,
    }


def _charge(bill: Bill, number: int) -> dict[str, object]:
    """Returns the charge of an attempt, counted back from the last. The person is masked as Tencent does it."""
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
