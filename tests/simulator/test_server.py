"""Answers to valid and invalid requests, called in process."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.options import DEMO_CREDENTIALS, SimulatorOptions
from simulator.server import create_simulator
from tests.support.simulator import Caller, Clock

TEXT_OF_ANNA = {"BizToken": "passed-anna", "RuleId": "1", "InfoType": "1"}
BODY = json.dumps(TEXT_OF_ANNA).encode()


async def error_code(caller: Caller, headers: dict[str, str], body: bytes = BODY) -> str:
    answer = await caller.post(headers, body)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    code: str = answer.json()["Response"]["Error"]["Code"]
    return code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"x-tc-action": ""}, "MissingParameter"),
        ({"x-tc-version": ""}, "MissingParameter"),
        ({"x-tc-timestamp": ""}, "MissingParameter"),
        ({"authorization": ""}, "MissingParameter"),
        ({"authorization": "Bearer token"}, "AuthFailure.InvalidAuthorization"),
        ({"x-tc-timestamp": "soon"}, "InvalidParameter"),
        ({"x-tc-timestamp": "1"}, "AuthFailure.SignatureExpire"),
        ({"content-type": "application/json; charset=utf-8"}, "AuthFailure.SignatureFailure"),
        ({"host": "elsewhere.test"}, "AuthFailure.SignatureFailure"),
        ({"x-tc-action": "DropEverything"}, "InvalidAction"),
        ({"x-tc-version": "2017-01-01"}, "NoSuchVersion"),
    ],
)
async def test_invalid_header_is_rejected_with_its_code(caller: Caller, changes: dict[str, str], code: str) -> None:
    assert await error_code(caller, caller.headers("GetDetectInfo", BODY) | changes) == code


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ([], "InvalidParameter"),
        ({}, "MissingParameter"),
        ({"BizToken": "", "RuleId": "1"}, "MissingParameter"),
        ({"BizToken": None, "RuleId": "1"}, "MissingParameter"),
        ({"BizToken": "passed"}, "MissingParameter"),
        ({"BizToken": 1, "RuleId": "1"}, "InvalidParameter"),
        ({"BizToken": "two words", "RuleId": "1"}, "InvalidParameter"),
        ({"BizToken": "passed\n", "RuleId": "1"}, "InvalidParameter"),
        ({"BizToken": "a" * 129, "RuleId": "1"}, "InvalidParameter"),
        (TEXT_OF_ANNA | {"Surprise": 1}, "UnknownParameter"),
        (TEXT_OF_ANNA | {"BestFramesCount": 1}, "UnknownParameter"),
        (TEXT_OF_ANNA | {"InfoType": 1}, "InvalidParameter"),
        *((TEXT_OF_ANNA | {"InfoType": wrong}, "InvalidParameterValue") for wrong in ("5", "11", "01", "all", "x")),
        (TEXT_OF_ANNA | {"InfoType": "0"}, None),
        (TEXT_OF_ANNA | {"InfoType": None}, None),
    ],
)
async def test_invalid_parameter_is_rejected_with_its_code(
    caller: Caller, parameters: object, code: str | None
) -> None:
    assert await caller.code("GetDetectInfo", parameters) == code


@pytest.mark.parametrize("body", [b"", b"\xff", b"{", b"[" * 100_000, b'"text"', b"null", b'{"BizToken": "\\ud800"}'])
async def test_body_other_than_a_json_object_is_rejected(caller: Caller, body: bytes) -> None:
    assert await error_code(caller, caller.headers("GetDetectInfo", body), body) == "InvalidParameter"


async def test_body_over_ten_mebibytes_is_rejected(caller: Caller) -> None:
    body = b" " * (10 * 1024 * 1024 + 1)

    assert await error_code(caller, caller.headers("GetDetectInfo", body), body) == "RequestSizeLimitExceeded"


@given(
    action=st.sampled_from(["DetectAuth", "GetDetectInfo", "GetDetectInfoEnhanced", "GetWeChatBillDetails"]),
    parameters=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["BizToken", "RuleId", "InfoType", "Date", "Cursor"]), inner)
        ),
    ),
)
async def test_any_parameters_get_an_answer_with_a_request_id(action: str, parameters: object) -> None:
    caller = Caller(create_simulator(SimulatorOptions(requests_per_second=0)))

    assert "RequestId" in await caller.call(action, parameters)


async def test_encryption_is_rejected_as_unsupported(caller: Caller) -> None:
    assert await caller.code("GetDetectInfoEnhanced", TEXT_OF_ANNA | {"IsEncryptResponse": True}) == (
        "UnsupportedOperation"
    )


async def test_extra_of_detect_auth_selects_the_scenario_and_is_returned(caller: Caller) -> None:
    begun = await caller.call("DetectAuth", {"RuleId": "1", "Extra": "loan-1 scenario=unfinished-1-failed-1001"})
    question = {"BizToken": begun["BizToken"], "RuleId": "1", "InfoType": "1"}

    answers = [json.loads((await caller.call("GetDetectInfo", question))["DetectInfo"])["Text"] for _ in range(2)]

    assert [text["ErrCode"] for text in answers] == [None, 1001]
    assert {text["Extra"] for text in answers} == {"loan-1 scenario=unfinished-1-failed-1001"}


async def test_expected_token_plays_its_scenario_with_attempts_from_its_instant() -> None:
    caller = Caller(create_simulator(SimulatorOptions(new_request_id=lambda: "0f96cf39")))
    caller.simulator.expect("CE661F1A", "failed-1001", datetime(2026, 11, 26, tzinfo=UTC))

    answer = await caller.call("GetDetectInfo", {"BizToken": "CE661F1A", "RuleId": "1", "InfoType": "1"})

    text = json.loads(answer["DetectInfo"])["Text"]
    assert (answer["RequestId"], text["ErrCode"]) == ("0f96cf39", 1001)
    assert text["Detail"]["LivenessData"][0]["ReqTime"] == "1795651200000"


async def test_scenario_option_applies_to_tokens_that_select_none() -> None:
    caller = Caller(create_simulator(SimulatorOptions(scenario="error-InternalError")))

    assert await caller.code("GetDetectInfo", TEXT_OF_ANNA) is None
    assert await caller.code("GetDetectInfo", TEXT_OF_ANNA | {"BizToken": "bob"}) == "InternalError"


async def test_calls_of_both_actions_count_and_rejected_ones_do_not(caller: Caller) -> None:
    question = {"BizToken": "throttled-2-anna", "RuleId": "1", "InfoType": "1"}

    codes = [
        await caller.code("GetDetectInfo", question | {"InfoType": "9"}),
        await caller.code("GetDetectInfo", question),
        await caller.code("GetDetectInfoEnhanced", question),
        await caller.code("GetDetectInfo", question),
    ]

    assert codes == ["InvalidParameterValue", "RequestLimitExceeded", "RequestLimitExceeded", None]


async def test_result_expires_72_hours_after_detect_auth(caller: Caller, clock: Clock) -> None:
    begun = await caller.call("DetectAuth", {"RuleId": "1"})
    question = {"BizToken": begun["BizToken"], "RuleId": "1", "InfoType": "1"}
    clock.now += 259_199

    assert await caller.code("GetDetectInfo", question) is None
    clock.now += 1
    assert await caller.code("GetDetectInfo", question) == "InvalidParameterValue.BizTokenExpired"


async def test_rate_limit_applies_per_action_within_a_sliding_second(clock: Clock) -> None:
    options = SimulatorOptions(requests_per_second=2, enhanced_requests_per_second=1, clock=clock)
    caller = Caller(create_simulator(options))
    start, codes = clock.now, []
    for second in (0.0, 0.6, 0.9, 1.05, 1.1, 1.6):
        clock.now = start + second
        codes.append(await caller.code("GetDetectInfo", TEXT_OF_ANNA))
    enhanced = [await caller.code("GetDetectInfoEnhanced", TEXT_OF_ANNA) for _ in range(2)]

    assert codes == [None, None, "RequestLimitExceeded", None, "RequestLimitExceeded", None]
    assert enhanced == [None, "RequestLimitExceeded"]
    assert caller.simulator.ledger.peaks == {
        "GetDetectInfo": 4,
        "GetDetectInfoEnhanced": 2,
        "GetWeChatBillDetails": 0,
    }


async def test_ledger_lists_calls_with_their_results(caller: Caller, clock: Clock) -> None:
    await caller.call("GetDetectInfo", TEXT_OF_ANNA)
    await caller.call("GetDetectInfo", TEXT_OF_ANNA | {"BizToken": "expired-bob"})
    await replace(caller, credentials=replace(DEMO_CREDENTIALS, secret_key="wrong")).call("GetDetectInfo", TEXT_OF_ANNA)

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(caller.simulator), base_url="http://faceid.test"
    ) as any_:
        ledger = (await any_.get("/_simulator/ledger")).json()

    shared = {"at": clock.now, "action": "GetDetectInfo"}
    refused = {"biz_token": None, "info_type": None, "scenario": None, "code": "AuthFailure.SignatureFailure"}
    expired = "InvalidParameterValue.BizTokenExpired"
    assert ledger == {
        "peak_per_second": {"GetDetectInfo": 2, "GetDetectInfoEnhanced": 0, "GetWeChatBillDetails": 0},
        "entries": [
            shared | {"biz_token": "passed-anna", "info_type": "1", "scenario": "passed", "code": None},
            shared | {"biz_token": "expired-bob", "info_type": "1", "scenario": "expired", "code": expired},
            shared | refused,
        ],
    }


async def test_ledger_and_known_tokens_are_bounded() -> None:
    caller = Caller(create_simulator(SimulatorOptions(max_tokens=1)))
    question = {"BizToken": "throttled-1-anna", "RuleId": "1", "InfoType": "1"}

    codes = [
        await caller.code("GetDetectInfo", question),
        await caller.code("GetDetectInfo", TEXT_OF_ANNA),
        await caller.code("GetDetectInfo", question),
    ]

    assert codes == ["RequestLimitExceeded", None, "RequestLimitExceeded"]
    assert caller.simulator.ledger.entries.maxlen == 10_000


async def test_client_that_disconnects_early_is_in_the_ledger(caller: Caller) -> None:
    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(_message: object) -> None:
        pass

    await caller.simulator({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send)

    assert [entry.code for entry in caller.simulator.ledger.entries] == ["InvalidRequest"]


async def test_http_scenario_answers_with_a_html_page(caller: Caller) -> None:
    body = json.dumps(TEXT_OF_ANNA | {"BizToken": "http503-anna"}).encode()

    answer = await caller.post(caller.headers("GetDetectInfo", body), body)

    assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html; charset=utf-8")
