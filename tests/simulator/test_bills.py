"""Bills: what is charged, on which day, when it is available, and its pages."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from tencentcloud.faceid.v20180301 import models

from simulator.options import SimulatorOptions
from simulator.people import person_of
from simulator.server import create_simulator
from tests.support.simulator import Caller, Clock, LiveSimulator

ACTION = "GetWeChatBillDetails"


def at(text: str) -> datetime:
    """Parses an instant in UTC+8."""
    return datetime.fromisoformat(f"{text}+08:00")


@pytest.fixture
def clock() -> Clock:
    return Clock(at("2026-03-01T12:00").timestamp())


async def billed(caller: Caller, day: str = "2026-03-01", rule_id: str = "") -> list[str]:
    answer = await caller.call(ACTION, {"Date": day, "Cursor": 0, "RuleId": rule_id})
    return [detail["BizToken"] for detail in answer["WeChatBillDetails"]]


async def begin(caller: Caller, scenario: str, rule_id: str = "1") -> str:
    begun = await caller.call("DetectAuth", {"RuleId": rule_id, "Extra": f"scenario={scenario}"})
    biz_token: str = begun["BizToken"]
    return biz_token


async def pull(caller: Caller, biz_token: str, action: str = "GetDetectInfo") -> None:
    body = json.dumps({"BizToken": biz_token, "RuleId": "1", "InfoType": "1"}).encode()
    await caller.post(caller.headers(action, body), body)


async def test_person_who_finished_at_once_is_billed_without_any_call(caller: Caller, clock: Clock) -> None:
    tokens = [await begin(caller, scenario) for scenario in ("passed", "failed-1001", "unfinished", "expired")]
    clock.now = at("2026-03-02T06:00").timestamp()

    assert await billed(caller) == tokens[:2]


async def test_person_found_finished_by_a_call_is_billed_once_on_that_day(caller: Caller, clock: Clock) -> None:
    biz_token = await begin(caller, "unfinished-1-failed-2016")
    for day in (1, 2, 3, 4):
        clock.now = at(f"2026-03-0{day}T12:00").timestamp()
        await pull(caller, biz_token)
        await pull(caller, "http502-x1-null17-x1-passed-anna", "GetDetectInfoEnhanced")

    assert [await billed(caller, f"2026-03-0{day}") for day in (1, 2, 3)] == [
        [],
        [biz_token],
        ["http502-x1-null17-x1-passed-anna"],
    ]


async def test_errors_and_transport_faults_are_not_billed(caller: Caller, clock: Clock) -> None:
    for scenario in ("throttled", "expired", "illegal", "error-InternalError", "http502", "garbage", "null17"):
        await pull(caller, scenario)
    clock.now = at("2026-03-02T06:00").timestamp()

    assert await billed(caller) == []


@pytest.mark.parametrize(
    ("instant", "day"),
    [
        ("2026-03-01T00:00", "2026-03-01"),
        ("2026-03-01T23:59:59.999", "2026-03-01"),
        ("2026-03-02T00:00", "2026-03-02"),
    ],
)
async def test_bill_covers_a_day_in_utc_plus_8(caller: Caller, clock: Clock, instant: str, day: str) -> None:
    caller.simulator.bill("anna", "1", at(instant).astimezone(UTC))
    clock.now = at("2026-03-10T12:00").timestamp()

    days = [f"2026-03-0{number}" for number in range(1, 10)]
    assert [each for each in days if await billed(caller, each)] == [day]


@pytest.mark.parametrize(
    ("now", "day", "code"),
    [
        ("2026-03-02T05:59:59", "2026-03-01", "InvalidParameterValue"),
        ("2026-03-02T06:00", "2026-03-01", None),
        ("2026-03-02T05:59:59", "2026-02-28", None),
        ("2026-03-02T23:59", "2026-03-02", "InvalidParameterValue"),
        ("2026-03-02T23:59", "2026-03-03", "InvalidParameterValue"),
        ("2026-03-02T00:00", "2025-03-02", None),
        ("2026-03-02T00:00", "2025-03-01", "InvalidParameterValue"),
        ("2026-03-02T12:00", "yesterday", "InvalidParameter"),
        ("2026-03-02T12:00", None, "MissingParameter"),
    ],
)
async def test_bill_is_available_from_6_of_the_next_day_for_365_days(
    caller: Caller, clock: Clock, now: str, day: str | None, code: str | None
) -> None:
    clock.now = at(now).timestamp()

    assert await caller.code(ACTION, {"Date": day, "Cursor": 0}) == code


@pytest.mark.parametrize(("cursor", "code"), [(None, "MissingParameter"), (-1, "InvalidParameter"), (10**9, None)])
async def test_cursor_must_be_a_number_from_zero_on(caller: Caller, cursor: int | None, code: str | None) -> None:
    assert await caller.code(ACTION, {"Date": "2026-02-01", "Cursor": cursor}) == code


async def test_rule_id_selects_the_bills_of_that_rule(caller: Caller, clock: Clock) -> None:
    tokens = [await begin(caller, "passed", rule_id) for rule_id in ("1", "2", "1")]
    clock.now = at("2026-03-02T06:00").timestamp()

    assert await billed(caller, rule_id="1") == [tokens[0], tokens[2]]
    assert await billed(caller, rule_id="3") == []
    assert await billed(caller) == tokens


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
async def test_pages_list_each_bill_once_while_others_are_added(clock: Clock, count: int) -> None:
    caller = Caller(create_simulator(SimulatorOptions(clock=clock, bills_per_page=2)))
    tokens = [f"token-{number}" for number in range(count)]
    for token in tokens:
        caller.simulator.bill(token, "1", at("2026-03-01T12:00"))
        caller.simulator.bill(f"other-{token}", "1", at("2026-02-27T12:00"))
    clock.now = at("2026-03-02T06:00").timestamp()
    cursor, pages, more = 0, [], True
    while more:
        page = await caller.call(ACTION, {"Date": "2026-03-01", "Cursor": cursor})
        pages.append([detail["BizToken"] for detail in page["WeChatBillDetails"]])
        cursor, more = page["NextCursor"], page["HasNextPage"]
        caller.simulator.bill(f"late-{len(pages)}", "1", at("2026-02-27T12:00"))

    assert pages == [tokens[start : start + 2] for start in range(0, max(count, 1), 2)]


async def test_bills_have_their_own_rate_limit_and_are_bounded(clock: Clock) -> None:
    options = SimulatorOptions(clock=clock, bill_requests_per_second=1, max_tokens=2)
    caller = Caller(create_simulator(options))
    for token in ("a", "b", "c"):
        caller.simulator.bill(token, "1", at("2026-02-27T12:00"))

    assert await billed(caller, "2026-02-27") == ["b", "c"]
    assert await caller.code(ACTION, {"Date": "2026-02-27", "Cursor": 0}) == "RequestLimitExceeded"
    assert caller.simulator.ledger.peaks == {"GetDetectInfo": 0, "GetDetectInfoEnhanced": 0, ACTION: 2}


async def test_bill_lists_every_attempt_and_masks_the_person(caller: Caller, clock: Clock) -> None:
    biz_token = await begin(caller, "failed-1001")
    last_ms = int(clock.now * 1000)
    clock.now = at("2026-03-02T06:00").timestamp()

    answer = await caller.call(ACTION, {"Date": "2026-03-01", "Cursor": 0})

    (detail,) = answer.pop("WeChatBillDetails")
    person, charge = person_of(biz_token), detail["ChargeDetails"][0]
    assert answer == {"HasNextPage": False, "NextCursor": 1, "RequestId": answer["RequestId"]}
    assert {name: value for name, value in detail.items() if name != "ChargeDetails"} == {
        "BizToken": biz_token,
        "ChargeCount": 3,
        "RuleId": "1",
    }
    assert [int(each["ReqTime"]) - last_ms for each in detail["ChargeDetails"]] == [0, -25_000, -50_000]
    assert charge == {
        "ReqTime": str(last_ms),
        "Seq": f"{last_ms}-0",
        "IdCard": "0****************" + person.id_card[-1],
        "Idcard": None,
        "Name": "**" + person.name[-1],
        "Sim": None,
        "IsNeedCharge": True,
        "ChargeType": "核身",
        "ErrorCode": "1001",
        "ErrorMessage": "活体检测未通过",
    }


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")
def test_official_sdk_finds_a_billed_token_without_any_call(live: LiveSimulator) -> None:
    finished_at = datetime.now(UTC) - timedelta(days=2)
    live.simulator.bill("passed-anna", "sdk", finished_at)
    request = models.GetWeChatBillDetailsRequest()
    request.Date = finished_at.astimezone(timezone(timedelta(hours=8))).date().isoformat()
    request.Cursor, request.RuleId = 0, "sdk"

    answer = live.official_client().GetWeChatBillDetails(request)

    (detail,) = answer.WeChatBillDetails
    (charge,) = detail.ChargeDetails
    assert (answer.HasNextPage, detail.BizToken, detail.RuleId) == (False, "passed-anna", "sdk")
    assert (charge.ReqTime, charge.ErrorCode) == (str(int(finished_at.timestamp() * 1000)), "0")
