"""How far this machine's clock is from Tencent's: signatures that are five minutes off are refused."""

import time
from datetime import timedelta
from email.utils import parsedate_to_datetime

import httpx

from app.errors import SetUpError, UnavailableError

_TIMEOUT_SECONDS = 10
_HALF_A_SECOND = 0.5  # the header counts whole seconds: on average it is this much behind


async def clock_offset(endpoint: str) -> timedelta:
    """This machine's clock minus the endpoint's, by the `Date` header of an unsigned request; good to a second.

    Raises:
        SetUpError: the endpoint is not an address.
        UnavailableError: it does not answer, or not with a date.
    """
    url = endpoint if "://" in endpoint else f"https://{endpoint}"
    sent = time.time()
    try:
        async with (
            httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False) as client,
            client.stream("GET", url) as response,
        ):
            ours = (sent + time.time()) / 2
            date = parsedate_to_datetime(response.headers["Date"])
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise SetUpError("FACEID_ENDPOINT must be a host name or an http(s) address.") from None
    except httpx.TransportError as error:
        raise UnavailableError(f"The endpoint does not answer ({type(error).__name__}).") from None
    except (KeyError, ValueError):
        raise UnavailableError("The endpoint's answer bears no date.") from None
    return timedelta(seconds=ours - date.timestamp() - _HALF_A_SECOND)
