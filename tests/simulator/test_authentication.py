"""The signature check computes the signatures that Tencent documents."""

import pytest

from simulator.authentication import signature

BODY = rb'{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}'
CONTENT_TYPE = ("content-type", "application/json; charset=utf-8")
HOST = ("host", "cvm.tencentcloudapi.com")


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
    assert signature(secret_key, service="cvm", timestamp=1551113065, headers=headers, body=BODY) == expected
