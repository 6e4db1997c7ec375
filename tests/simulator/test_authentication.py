"""The signature check, against Tencent's published examples and the client's own signatures."""

import json
import re

import pytest

from simulator.authentication import signature
from simulator.options import DEMO_CREDENTIALS
from tests.support.simulator import Caller, Clock, authorization

BODY = json.dumps({"BizToken": "passed-anna", "RuleId": "1", "InfoType": "1"}).encode()
PUBLISHED_BODY = rb'{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}'
CONTENT_TYPE = ("content-type", "application/json; charset=utf-8")
HOST = ("host", "cvm.tencentcloudapi.com")


async def error_code(caller: Caller, headers: dict[str, str], body: bytes = BODY) -> str | None:
    """Returns the error code of the answer, or None if it has a result."""
    answer = (await caller.post(headers, body)).json()["Response"]
    return None if "DetectInfo" in answer else answer["Error"]["Code"]


@pytest.mark.parametrize(
    ("secret_key", "headers", "expected"),
    [
        (
            "*" * 32,
            [CONTENT_TYPE, HOST, ("x-tc-action", " DescribeInstances ")],
            "10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f",
        ),
        (
            "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE",
            [CONTENT_TYPE, HOST],
            "72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168",
        ),
    ],
)
def test_signature_equals_the_example_in_tencents_documentation(
    secret_key: str, headers: list[tuple[str, str]], expected: str
) -> None:
    assert signature(secret_key, service="cvm", timestamp=1551113065, headers=headers, body=PUBLISHED_BODY) == expected


async def test_changed_body_is_rejected(caller: Caller) -> None:
    headers = caller.headers("GetDetectInfo", BODY)

    assert await error_code(caller, headers, BODY + b" ") == "AuthFailure.SignatureFailure"


@pytest.mark.parametrize("names", [["host"], ["content-type"], ["content-type", "host", "x-not-sent"]])
async def test_signed_headers_must_include_content_type_and_host_and_be_sent(caller: Caller, names: list[str]) -> None:
    headers = caller.headers("GetDetectInfo", BODY)
    signed = {name: headers.get(name, "") for name in names}
    headers["authorization"] = authorization(DEMO_CREDENTIALS, signed, BODY, int(headers["x-tc-timestamp"]))

    assert await error_code(caller, headers) == "AuthFailure.SignatureFailure"


async def test_extra_signed_headers_and_commas_without_space_are_accepted(caller: Caller) -> None:
    headers = caller.headers("GetDetectInfo", BODY)
    signed = {name: headers[name] for name in ("content-type", "host", "x-tc-action")}
    signature = authorization(DEMO_CREDENTIALS, signed, BODY, int(headers["x-tc-timestamp"]))
    headers["authorization"] = signature.replace(", ", ",")

    assert await error_code(caller, headers) is None


@pytest.mark.parametrize("seconds", [-301, -299, 299, 301])
async def test_signature_is_valid_within_five_minutes_of_the_clock(caller: Caller, clock: Clock, seconds: int) -> None:
    code = await error_code(caller, caller.headers("GetDetectInfo", BODY, at=clock.now + seconds))

    assert code == (None if abs(seconds) < 300 else "AuthFailure.SignatureExpire")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/faceid/", "/cvm/"),
        (r"/\d{4}-", "/1999-"),
        ("content-type;host", "host;content-type"),
        ("content-type;host", "content-type;host;host"),
    ],
)
async def test_scope_and_order_of_signed_headers_are_checked(caller: Caller, old: str, new: str) -> None:
    headers = caller.headers("GetDetectInfo", BODY)
    headers["authorization"], count = re.subn(old, new, headers["authorization"])

    assert (count, await error_code(caller, headers)) == (1, "AuthFailure.SignatureFailure")


@pytest.mark.parametrize("scheme", ["TC3-HMAC-SHA1", "tc3-hmac-sha256"])
async def test_other_algorithm_is_rejected(caller: Caller, scheme: str) -> None:
    headers = caller.headers("GetDetectInfo", BODY)
    headers["authorization"] = headers["authorization"].replace("TC3-HMAC-SHA256", scheme)

    assert await error_code(caller, headers) == "AuthFailure.InvalidAuthorization"
