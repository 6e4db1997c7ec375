"""TC3-HMAC-SHA256: the two vectors that Tencent published, and the date, which must be UTC."""

import time
from collections.abc import Iterator

import pytest

from app.faceid.signing import Credentials, authorization

BODY = rb'{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}'
HEADERS = {"content-type": "application/json; charset=utf-8", "host": "cvm.tencentcloudapi.com"}
VECTORS = [
    pytest.param(
        "*" * 32,
        HEADERS | {"x-tc-action": "DescribeInstances"},
        "10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f",
        id="current documentation",
    ),
    pytest.param(
        "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE",
        HEADERS,
        "72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168",
        id="older documentation",
    ),
]


@pytest.mark.parametrize(("secret_key", "headers", "signature"), VECTORS)
def test_published_vector_is_reproduced(secret_key: str, headers: dict[str, str], signature: str) -> None:
    signed = authorization(
        Credentials("AKIDEXAMPLE", secret_key), service="cvm", headers=headers, body=BODY, timestamp=1551113065
    )

    names = ";".join(sorted(headers))
    assert signed == (
        f"TC3-HMAC-SHA256 Credential=AKIDEXAMPLE/2019-02-25/cvm/tc3_request, SignedHeaders={names}, "
        f"Signature={signature}"
    )


@pytest.fixture
def in_china(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_china")
def test_scope_has_the_utc_date_while_china_is_a_day_ahead() -> None:
    half_past_midnight_in_china = 1551112200  # 2019-02-25 16:30 UTC

    signed = authorization(
        Credentials("AKIDEXAMPLE", "secret"),
        service="faceid",
        headers=HEADERS,
        body=b"{}",
        timestamp=half_past_midnight_in_china,
    )

    assert "/2019-02-25/faceid/tc3_request" in signed


def test_secrets_are_absent_from_repr() -> None:
    assert repr(Credentials("AKIDEXAMPLE", "top-secret", "top-token")) == "Credentials(secret_id='AKIDEXAMPLE')"
