"""The time of an endpoint by the Date header of its response."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from app.errors import UnavailableError
from app.faceid.client import server_time
from app.faceid.credentials import AccountSettings
from tests.support.tencent import peer, saying


async def test_server_time_is_the_date_of_the_response() -> None:
    ahead = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    async with peer(saying(b"", status="400 Bad Request", headers=f"Date: {ahead}\r\n")) as (url, _):
        theirs = await server_time(AccountSettings(endpoint=url))

    assert abs(theirs - datetime.now(UTC) - timedelta(hours=1)) < timedelta(seconds=3)


async def test_server_time_of_an_unreachable_server_is_an_error() -> None:
    async with peer(saying(b"")) as (url, _):
        pass

    with pytest.raises(UnavailableError, match=r"^The endpoint does not answer \(ConnectError\)\.$"):
        await server_time(AccountSettings(endpoint=url))


@pytest.mark.parametrize(
    "value",
    [
        "soon",
        "Thu, 26 Nov 2026 25:00:00 GMT",
        "Thu, 26 Nov 99999999999999999999 15:00:00 GMT",
        "Thu, 26 Nov 2026 15:00:00 +9999999999999999999999",
        "Fri, 31 Dec 9999 23:59:59 -2300",
    ],
)
async def test_server_time_without_a_valid_date_is_an_error(value: str) -> None:
    async with peer(saying(b"", headers=f"Date: {value}\r\n")) as (url, _):
        with pytest.raises(UnavailableError, match="no valid Date header"):
            await server_time(AccountSettings(endpoint=url))
