"""Calls the FaceID API over one long-lived HTTP client.

Every request is signed. Every response is streamed, limited in size, and has a deadline for the call as a whole.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import Generic, Self, TypeVar

import httpx
import msgspec

from app.domain.detection import EVERYTHING, Detection, InfoType, Part
from app.domain.media import MediaKind, UnreadableReason
from app.domain.rule import DEFAULT_ACCOUNT, Enhanced
from app.domain.verification import UpstreamCall
from app.errors import ConfigurationError, UnavailableError
from app.faceid.credentials import AccountSettings, CredentialSource, FaceIdSettings
from app.faceid.decode import Bill, decode_bill, decode_detect_info, decode_head
from app.faceid.error_codes import (
    CONNECT_TIMED_OUT,
    CONNECTION_FAILED,
    HTTP_STATUS,
    PROXY_FAILED,
    TIMED_OUT,
    TOO_LARGE,
    UNREADABLE,
)
from app.faceid.lifter import LiftedBody, Lifter, S
from app.faceid.payloads import DecodeError, OversizedError
from app.faceid.signing import authorization
from app.faceid.transport import AiohttpTransport

GET_DETECT_INFO = "GetDetectInfo"
GET_DETECT_INFO_ENHANCED = "GetDetectInfoEnhanced"
# The digits of both kinds of intention in an InfoType.
_INTENTION = "56"
_VERSION = "2018-03-01"
_CONTENT_TYPE = "application/json"
_CONNECT_SECONDS = 5.0
# Between two reads. The deadline of a whole call is a setting.
_SOCKET_SECONDS = 15.0
_CLOCK_SECONDS = 10.0
# A row of a bill has half a kilobyte.
_MAX_BILL_BYTES = 16 * 2**20
# The Date header counts whole seconds, so it is this much behind on average.
_HALF_A_SECOND = 0.5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DetectAnswer(Generic[S]):
    """The outcome of one call for a result. Everything else is absent if `call.error_code` is set.

    `unreadable`: the media that were in the answer, but not as base64.
    """

    call: UpstreamCall
    detection: Detection | None = None
    media: Mapping[MediaKind, S] = field(default_factory=dict)
    unreadable: Mapping[MediaKind, UnreadableReason] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BillPage:
    """One page of a day's bill. `bill` is empty after an error."""

    call: UpstreamCall
    bill: Bill = field(default_factory=Bill)


class FaceIdClient:
    """The client of one account: an async context manager that owns the connections.

    Raises:
        ConfigurationError: the endpoint is not an address, there are no credentials, or the certificates cannot be
            read.
    """

    def __init__(
        self,
        settings: FaceIdSettings,
        account: str = DEFAULT_ACCOUNT,
        *,
        connections: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        account_settings = settings.all_accounts[account]
        self._url = _url(account_settings.endpoint)
        self._credentials = CredentialSource(account, account_settings)
        self.timeout = timedelta(seconds=settings.faceid_timeout_seconds)
        self._max_bytes = settings.faceid_max_bytes
        self._clock = clock
        self._http = _http_client(account_settings, connections, settings.faceid_timeout_seconds)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def get_detect_info(
        self,
        *,
        biz_token: str,
        rule_id: str,
        info_type: InfoType,
        open_sink: Callable[[], S],
        enhanced: Enhanced | None = None,
    ) -> DetectAnswer[S]:
        """Calls GetDetectInfo (https://cloud.tencent.com/document/product/876/33560) once.

        With `enhanced` it calls GetDetectInfoEnhanced (https://cloud.tencent.com/document/api/1007/41957) instead.

        Media are written to sinks of `open_sink` while they arrive; those in `DetectAnswer.media` are valid. Failures
        of the network and of Tencent are not raised but returned in `DetectAnswer.call.error_code`. Exceptions of a
        sink are passed on.
        """
        action = GET_DETECT_INFO_ENHANCED if enhanced else GET_DETECT_INFO
        parameters = {"BizToken": biz_token, "RuleId": rule_id} | _parts(info_type, enhanced)
        call, answer = await self._call(action, parameters, Lifter(open_sink), decode_detect_info)
        return DetectAnswer(call, answer.detection, answer.media, answer.unreadable) if answer else DetectAnswer(call)

    async def get_wechat_bill_details(self, *, day: date, rule_id: str, cursor: int = 0) -> BillPage:
        """Calls GetWeChatBillDetails (https://cloud.tencent.com/document/product/1007/51442) once.

        The bill of a day in UTC+8 is available from 06:00 of the next day, for 365 days. An empty `rule_id` means all
        rules. `cursor` is 0 or the `next_cursor` of the page before. Failures are returned, as by `get_detect_info`.
        """
        parameters = {"Date": day.isoformat(), "Cursor": cursor, "RuleId": rule_id}
        lifter = Lifter(BytesIO, max_skeleton=_MAX_BILL_BYTES)
        call, bill = await self._call("GetWeChatBillDetails", parameters, lifter, decode_bill)
        return BillPage(call, bill or Bill())

    async def _call(
        self,
        action: str,
        parameters: Mapping[str, object],
        lifter: Lifter[S],
        decode: Callable[[LiftedBody[S]], T],
    ) -> tuple[UpstreamCall, T | None]:
        """Calls once; returns the record of the call, and the answer unless the record has an error code."""
        called_at, start = self._clock(), time.perf_counter()
        request_id, error_code, answer = None, None, None
        try:
            body = await self._receive(action, parameters, lifter)
            request_id, error_code = decode_head(body)
            answer = None if error_code else decode(body)
        except _UnusableResponseError as error:
            error_code = str(error)
        except httpx.ConnectTimeout:
            error_code = CONNECT_TIMED_OUT
        except (TimeoutError, httpx.TimeoutException):
            error_code = TIMED_OUT
        except httpx.ProxyError:
            error_code = PROXY_FAILED
        except httpx.TransportError:
            error_code = CONNECTION_FAILED
        except DecodeError as error:
            error_code = TOO_LARGE if isinstance(error, OversizedError) else UNREADABLE
        call = UpstreamCall(
            called_at=called_at,
            action=action,
            info_type=str(parameters.get("InfoType", "")),
            request_id=request_id,
            error_code=error_code,
            duration_ms=round((time.perf_counter() - start) * 1000),
            bytes_received=lifter.bytes_fed,
        )
        return call, answer

    async def _receive(self, action: str, parameters: Mapping[str, object], lifter: Lifter[S]) -> LiftedBody[S]:
        content = msgspec.json.encode(parameters)
        async with (
            asyncio.timeout(self.timeout.total_seconds()),
            self._http.stream("POST", self._url, content=content, headers=self._headers(action, content)) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise _UnusableResponseError(f"{HTTP_STATUS}.{response.status_code}")
            # No compression was requested, and a small compressed body may unpack to gigabytes.
            if response.headers.get("Content-Encoding", "").lower() not in {"", "identity"}:
                raise _UnusableResponseError(UNREADABLE)
            async for piece in response.aiter_raw():
                if lifter.bytes_fed + len(piece) > self._max_bytes:
                    raise _UnusableResponseError(TOO_LARGE)
                lifter.feed(piece)
            return lifter.finish()

    def _headers(self, action: str, content: bytes) -> dict[str, str]:
        timestamp, credentials = int(self._clock().timestamp()), self._credentials.current()
        signed = {"content-type": _CONTENT_TYPE, "host": self._url.netloc.decode(), "x-tc-action": action}
        headers = {
            "Content-Type": _CONTENT_TYPE,
            "X-TC-Action": action,
            "X-TC-Version": _VERSION,
            "X-TC-Timestamp": str(timestamp),
            "Authorization": authorization(
                credentials, service="faceid", headers=signed, body=content, timestamp=timestamp
            ),
        }
        return headers | ({"X-TC-Token": credentials.token} if credentials.token else {})


async def server_time(account: AccountSettings) -> datetime:
    """Returns the endpoint's time by the `Date` header of an unsigned request, accurate to a second.

    Raises:
        ConfigurationError: the endpoint is not an address, or the certificates cannot be read.
        UnavailableError: it does not answer, or not with a date.
    """
    url, http, start = _url(account.endpoint), _http_client(account, 1, _CLOCK_SECONDS), time.perf_counter()
    try:
        async with asyncio.timeout(_CLOCK_SECONDS), http, http.stream("GET", url) as response:
            # Half of the way, and half of the second that the header cannot show.
            way = timedelta(seconds=(time.perf_counter() - start) / 2 + _HALF_A_SECOND)
            return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC) + way
    except (TimeoutError, httpx.TransportError) as error:
        raise UnavailableError(f"The endpoint does not answer ({type(error).__name__}).") from None
    except (KeyError, ValueError, OverflowError):
        raise UnavailableError("The endpoint's response has no valid Date header.") from None


class _UnusableResponseError(Exception):
    """The response is not read any further. The argument is the error code of the call."""


def _http_client(account: AccountSettings, connections: int, seconds: float) -> httpx.AsyncClient:
    """Returns a client for calls of at most `seconds`. Half of them are left when connecting has timed out."""
    proxy = account.proxy.get_secret_value() if account.proxy else None
    return httpx.AsyncClient(
        timeout=httpx.Timeout(
            _SOCKET_SECONDS, connect=min(_CONNECT_SECONDS, seconds / 2), pool=min(_SOCKET_SECONDS, seconds / 2)
        ),
        transport=AiohttpTransport(connections=connections, proxy=proxy, ca_file=account.ca_file),
        headers={"Accept-Encoding": "identity", "User-Agent": "faceid-results"},
        # Results of persons only pass through a proxy that the settings name, not through one of the environment.
        trust_env=False,
        follow_redirects=False,
    )


def _url(endpoint: str) -> httpx.URL:
    try:
        url = httpx.URL(endpoint if "://" in endpoint else f"https://{endpoint}")
    except httpx.InvalidURL:
        url = httpx.URL()
    # User information in the URL would make httpx overwrite our Authorization header.
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo:
        raise ConfigurationError("FACEID_ENDPOINT must be a host name or an http(s) address.")
    return url.copy_with(path="/", query=None, fragment=None)


def _parts(info_type: InfoType, enhanced: Enhanced | None) -> dict[str, object]:
    if enhanced is None:
        return {"InfoType": str(info_type)}
    options = {
        "BestFramesCount": enhanced.best_frames if Part.BEST_FRAME in info_type.parts else 0,
        "IsCutIdCardImage": enhanced.cut_id_card and Part.ID_CARD in info_type.parts,
        "IsNeedIdCardAvatar": enhanced.id_card_avatar and Part.ID_CARD in info_type.parts,
    }
    digits = "".join(Part) if info_type == EVERYTHING else str(info_type)
    # The verdict needs the results of the intention.
    digits += _INTENTION if Part.TEXT in info_type.parts else ""
    return {"InfoType": digits} | {name: value for name, value in options.items() if value}
