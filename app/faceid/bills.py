"""Tencent's bills in our own words: which BizTokens were charged for, for those of which nobody told us."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.domain.detection import instant_of
from app.faceid.decode import Head, head_of
from app.faceid.lift import Lifted
from app.faceid.payloads import BillDetail, BillResponse, DecodeError, Envelope, parse


@dataclass(frozen=True, slots=True)
class BilledToken:
    """A BizToken that was charged for; `first_attempt_at` is its earliest comparison, where the bill says when."""

    biz_token: str
    rule_id: str
    first_attempt_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BillPage(Head):
    """One page of a day's bill; `next_cursor` is None on the last."""

    biz_tokens: Sequence[BilledToken] = ()
    next_cursor: int | None = None


def decode_bill(lifted: Lifted) -> BillPage:
    """Understand one answer of GetWeChatBillDetails.

    Raises:
        DecodeError: it is not what Tencent documents, or goes on without saying where.
    """
    response = parse(lifted.skeleton, Envelope[BillResponse]).response
    head = head_of(response)
    if head.error:
        return BillPage(head.request_id, head.error)
    if response.has_next_page is None or (response.has_next_page and response.next_cursor is None):
        raise DecodeError("a bill does not say whether and where it goes on")
    return BillPage(
        head.request_id,
        None,
        [_billed(detail) for detail in response.we_chat_bill_details or ()],
        response.next_cursor if response.has_next_page else None,
    )


def _billed(detail: BillDetail) -> BilledToken:
    known = [instant_of(str(charge.req_time)) for charge in detail.charge_details or ()]
    first = min((at for at in known if at), default=None)
    return BilledToken(detail.biz_token, detail.rule_id, first)
