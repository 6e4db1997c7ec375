"""Bills become lists of BizTokens, and our client and the official SDK read the same from the same server."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.faceid.v20180301 import models

from app.domain.detection import instant_of
from app.faceid import error_codes
from app.faceid.client import BillPage
from app.faceid.decode import Bill, BilledToken, decode_bill
from app.faceid.lifter import Lifter
from app.faceid.payloads import DecodeError
from simulator.options import SimulatorOptions
from tests.support.simulator import LiveSimulator, live_simulator
from tests.support.tencent import client_of, peer, saying

AT = datetime(2024, 5, 10, 7, 52, 43, 289000, tzinfo=UTC)
FINISHED_AT = datetime.now(UTC).replace(hour=3, microsecond=0) - timedelta(days=2)  # 11 o'clock in China
DAY = FINISHED_AT.astimezone(timezone(timedelta(hours=8))).date()


def read(body: bytes) -> Bill:
    lifter = Lifter(BytesIO)
    lifter.feed(body)
    return decode_bill(lifter.finish())


def answer(details: object, **others: object) -> bytes:
    response = {"HasNextPage": False, "NextCursor": 5, "WeChatBillDetails": details, "RequestId": "r-1"}
    return json.dumps({"Response": response | others}).encode()


def detail(**others: object) -> dict[str, object]:
    return {"BizToken": "anna", "RuleId": "7", "ChargeCount": 0, "ChargeDetails": []} | others


# The response.


def test_documented_example_is_read() -> None:
    charge = {
        "ErrorMessage": "成功",
        "Name": "**测",
        "Seq": "xxxxx",
        "Idcard": "0****************8",
        "ErrorCode": 0,
        "IsNeedCharge": True,
        "ChargeType": "核身",
        "ReqTime": "1715327563289",
        "Sim": "100.00",
    }

    body = answer([detail(ChargeCount=1, ChargeDetails=[charge])], HasNextPage=True, NextCursor=1873)
    assert read(body) == Bill([BilledToken("anna", "7", AT)], next_cursor=1873)


@pytest.mark.parametrize(
    ("charges", "first_attempt_at"),
    [
        ([{"ReqTime": "1715327563290"}, {"ReqTime": 1715327563289}, {"ReqTime": "1715327563291"}], AT),
        ([{"ReqTime": ""}, {"ReqTime": None}, {}, {"ReqTime": "soon"}, {"ReqTime": "1715327563289"}], AT),
        ([None, 5, {"ReqTime": []}, {"ReqTime": "1715327563289"}], AT),
        ({"0": {"ReqTime": 1715327563289}}, AT),
        ([{"ReqTime": "0"}], None),
        ("none", None),
        ([{}], None),
        ([], None),
        (None, None),
    ],
)
def test_first_attempt_is_the_earliest_with_a_time(charges: object, first_attempt_at: datetime | None) -> None:
    assert read(answer([detail(ChargeDetails=charges)])) == Bill([BilledToken("anna", "7", first_attempt_at)])


@pytest.mark.parametrize("details", [None, [], "", {}])
def test_day_without_a_bill_is_empty(details: object) -> None:
    assert read(answer(details)) == Bill([])


EMPTY: list[object] = [None, "", [], {}]


@pytest.mark.parametrize(
    "row",
    [
        *(detail(RuleId=value) for value in (*EMPTY, True)),
        *(detail(BizToken=value) for value in (*EMPTY, {"a": 1})),
        {"BizToken": "anna"},
        {"RuleId": "7"},
        None,
        "anna",
        [],
    ],
)
def test_malformed_row_of_a_bill_costs_only_itself(row: object) -> None:
    body = answer([detail(), row, detail(BizToken="ben", RuleId=7)], HasNextPage=True)

    assert read(body) == Bill([BilledToken("anna", "7"), BilledToken("ben", "7")], malformed=1, next_cursor=5)


@pytest.mark.parametrize(
    ("more", "cursor", "expected"),
    [
        *((True, 5, 5), (True, 0, 0), (False, 5, None), (False, None, None), ("true", "5", 5), (1, 5.0, 5)),
        *(("false", 5, None), (0, 5, None), ("0", "", None)),
    ],
)
def test_last_page_has_no_next_cursor(more: object, cursor: object, expected: int | None) -> None:
    assert read(answer([], HasNextPage=more, NextCursor=cursor)) == Bill([], next_cursor=expected)


async def test_error_is_read_whatever_comes_with_it() -> None:
    body = answer([detail()], Error={"Code": "InvalidParameter", "Message": "m"})
    async with peer(saying(body)) as (url, _), client_of(url) as client:
        page = await client.get_wechat_bill_details(day=DAY, rule_id="1")

    assert page == BillPage(replace(page.call, error_code="InvalidParameter", request_id="r-1"))


MALFORMED = [
    b"",
    b"<html>",
    b"[]",
    b"{}",
    b'{"Response":{}}',
    b'{"Response":{"WeChatBillDetails":[],"RequestId":"r"}}',
    answer([], HasNextPage=None),
    answer([], HasNextPage="soon"),
    answer([], HasNextPage=True, NextCursor="next"),
    answer([], HasNextPage=True, NextCursor=None),
    answer("none"),
    answer([])[:-1],
    b"[" * 10_000,
]


@pytest.mark.parametrize("body", MALFORMED)
def test_undocumented_bill_is_an_error(body: bytes) -> None:
    with pytest.raises(DecodeError):
        read(body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["HasNextPage", "NextCursor", "WeChatBillDetails", "BizToken", "ReqTime", "Error"]),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_any_json_is_a_page_or_a_decode_error(response: object) -> None:
    try:
        bill = read(json.dumps({"Response": response}).encode())
    except DecodeError:
        return
    assert all(isinstance(token, BilledToken) for token in bill.biz_tokens)
    assert bill.next_cursor is None or isinstance(bill.next_cursor, int)


# The call.


@pytest.fixture(scope="module")
def paged() -> Iterator[LiveSimulator]:
    with live_simulator(SimulatorOptions(bills_per_page=3, bill_requests_per_second=0)) as running:
        for number in range(7):
            running.simulator.bill(f"token-{number}", str(number % 2), FINISHED_AT + timedelta(seconds=number))
        yield running


def by_sdk(simulator: LiveSimulator, rule_id: str, cursor: int) -> tuple[list[BilledToken], int | None]:
    request = models.GetWeChatBillDetailsRequest()
    request.Date, request.Cursor, request.RuleId = DAY.isoformat(), cursor, rule_id
    page = simulator.official_client().GetWeChatBillDetails(request)
    tokens = [
        BilledToken(each.BizToken, each.RuleId, instant_of(each.ChargeDetails[0].ReqTime))
        for each in page.WeChatBillDetails
    ]
    return tokens, page.NextCursor if page.HasNextPage else None


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")
@pytest.mark.parametrize(("rule_id", "sizes"), [("", [3, 3, 1]), ("0", [3, 1]), ("1", [3]), ("2", [0])])
async def test_every_page_is_read_as_by_the_official_sdk(paged: LiveSimulator, rule_id: str, sizes: list[int]) -> None:
    cursor: int | None = 0
    pages = []
    async with client_of(paged.url) as client:
        while cursor is not None:
            billed = await client.get_wechat_bill_details(day=DAY, rule_id=rule_id, cursor=cursor)
            assert (billed.bill.biz_tokens, billed.bill.next_cursor) == by_sdk(paged, rule_id, cursor)
            assert (billed.call.action, billed.call.info_type) == ("GetWeChatBillDetails", "")
            assert billed.call.error_code is None
            assert len(billed.call.request_id or "") == 36
            pages.append(billed.bill.biz_tokens)
            cursor = billed.bill.next_cursor

    billed_for = {token.biz_token for page in pages for token in page}
    assert [len(page) for page in pages] == sizes
    assert billed_for == {f"token-{number}" for number in range(7) if rule_id in {"", str(number % 2)}}


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")
async def test_error_is_read_as_by_the_official_sdk(paged: LiveSimulator) -> None:
    tomorrow = DAY + timedelta(days=3)
    request = models.GetWeChatBillDetailsRequest()
    request.Date, request.Cursor = tomorrow.isoformat(), 0
    with pytest.raises(TencentCloudSDKException) as raised:
        paged.official_client().GetWeChatBillDetails(request)

    async with client_of(paged.url) as client:
        billed = await client.get_wechat_bill_details(day=tomorrow, rule_id="")

    assert billed == BillPage(billed.call)
    assert billed.call.error_code == raised.value.code == "InvalidParameterValue"
    assert len(billed.call.request_id or "") == len(raised.value.requestId)


@pytest.mark.parametrize("body", MALFORMED)
async def test_malformed_bill_is_an_error_code(body: bytes) -> None:
    async with peer(saying(body)) as (url, _), client_of(url) as client:
        billed = await client.get_wechat_bill_details(day=DAY, rule_id="1")

    assert billed == BillPage(replace(billed.call, error_code=error_codes.UNREADABLE))


async def test_bill_has_the_size_limit_and_deadline_of_every_call() -> None:
    body = answer([detail()] * 1000)
    async with peer(saying(body)) as (url, _), client_of(url, max_bytes=5000) as client:
        large = await client.get_wechat_bill_details(day=DAY, rule_id="1")
    async with peer(saying(b"", length=9)) as (url, _), client_of(url, seconds=0.2) as client:
        late = await client.get_wechat_bill_details(day=DAY, rule_id="1")

    assert (large.call.error_code, late.call.error_code) == (error_codes.TOO_LARGE, error_codes.TIMED_OUT)
