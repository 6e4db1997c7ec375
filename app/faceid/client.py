"""Calls FaceID over one long-lived HTTP client: every call signed, streamed, capped in bytes and in time as a whole."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from io import BytesIO
from typing import Self, TypeVar

import httpx
import msgspec

from app.domain.detection import EVERYTHING, Detection, InfoType, MediaKind, Part
from app.domain.rule import DEFAULT_ACCOUNT, Enhanced
from app.domain.verification import Call
from app.errors import SetUpError, UnavailableError
from app.faceid import codes
from app.faceid.accounts import CredentialSource, FaceIdSettings
from app.faceid.bills import BilledToken, decode_bill
from app.faceid.decode import DecodeError, Head, decode
from app.faceid.lift import Lifted, Lifter, Sink
from app.faceid.signing import authorization
from app.faceid.transport import AiohttpTransport

VERSION = "2018-03-01"
CONTENT_TYPE = "application/json"
MEDIA_NOT_STORED = "storage.media"  # stands for Tencent's code where the answer was good and our own store was not
_CONNECT_SECONDS = 5.0
_SOCKET_SECONDS = 15.0  # between two reads; the total deadline is the setting

AnyAnswer = TypeVar("AnyAnswer", bound=Head)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of one call: `media` are the sinks that count. Both are empty after an error."""

    call: Call
    detection: Detection | None = None
    media: Mapping[MediaKind, Sink] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Billed:
    """One page of a day's bill; `next_cursor` is None on the last page and after an error."""

    call: Call
    biz_tokens: Sequence[BilledToken] = ()
    next_cursor: int | None = None


class FaceIdClient:
    """The client of one account. An async context manager: leaving it closes the connections.

    Raises:
        SetUpError: the endpoint is not an address, or there are no credentials.
    """

    def __init__(self, settings: FaceIdSettings, account: str = DEFAULT_ACCOUNT, *, connections: int) -> None:
        found = settings.all_accounts[account]
        self._url = _url(found.endpoint)
        self._credentials = CredentialSource(account, found)
        self.timeout = timedelta(seconds=settings.faceid_timeout_seconds)
        self._max_bytes = settings.faceid_max_bytes
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(_SOCKET_SECONDS, connect=_CONNECT_SECONDS),
            transport=AiohttpTransport(connections=connections),
            headers={"Accept-Encoding": "identity", "User-Agent": "faceid-results"},
            trust_env=False,  # no proxy from the environment sees a person's result
            follow_redirects=False,
        )

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
        open_sink: Callable[[], Sink],
        enhanced: Enhanced | None = None,
    ) -> Fetched:
        """Calls GetDetectInfo (https://cloud.tencent.com/document/product/876/33560) once.

        With `enhanced` it calls GetDetectInfoEnhanced (https://cloud.tencent.com/document/api/1007/41957) instead.

        Media are written to sinks of `open_sink` while they arrive; which of them count, `Fetched.media` says. Never
        raises for what the network, Tencent or a sink does (`UnavailableError`): `Fetched.call.error_code` says it.
        """
        token = {"BizToken": biz_token, "RuleId": rule_id}
        action, wanted = _enhanced(info_type, enhanced) if enhanced else ("GetDetectInfo", {"InfoType": str(info_type)})
        call, answer = await self._call(action, token | wanted, open_sink, partial(decode, open_sink=open_sink))
        return Fetched(call, answer.detection, answer.media) if answer else Fetched(call)

    async def get_wechat_bill_details(self, *, day: date, rule_id: str, cursor: int = 0) -> Billed:
        """Calls GetWeChatBillDetails (https://cloud.tencent.com/document/product/1007/51442) once.

        The bill of a day in UTC+8, of all rules where `rule_id` is empty, is there from 06:00 of the next day on for
        365 days. `cursor` is 0, or the `next_cursor` of the page before. Never raises, as `get_detect_info`.
        """
        parameters = {"Date": day.isoformat(), "Cursor": cursor, "RuleId": rule_id}
        call, page = await self._call("GetWeChatBillDetails", parameters, BytesIO, decode_bill)
        return Billed(call, page.biz_tokens, page.next_cursor) if page else Billed(call)

    async def _call(
        self,
        action: str,
        parameters: Mapping[str, object],
        open_sink: Callable[[], Sink],
        read: Callable[[Lifted], AnyAnswer],
    ) -> tuple[Call, AnyAnswer | None]:
        """The one way to call: whatever happens is on record, and there is an answer or the reason why not."""
        called_at, start, meter = datetime.now(UTC), time.perf_counter(), _Meter(self._max_bytes)
        answer, error_code = await _told(self._ask(action, parameters, Lifter(open_sink), meter), read)
        call = Call(
            called_at=called_at,
            action=action,
            info_type=str(parameters.get("InfoType", "")),
            request_id=answer.request_id if answer else None,
            error_code=error_code,
            duration_ms=round((time.perf_counter() - start) * 1000),
            bytes_received=meter.bytes,
        )
        return call, answer

    async def _ask(self, action: str, parameters: Mapping[str, object], lifter: Lifter, meter: "_Meter") -> Lifted:
        body = msgspec.json.encode(parameters)
        async with (
            asyncio.timeout(self.timeout.total_seconds()),
            self._http.stream("POST", self._url, content=body, headers=self._headers(action, body)) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise _NoAnswerError(f"{codes.HTTP_STATUS}{response.status_code}")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise _NoAnswerError(codes.UNREADABLE)  # we asked for none: a small body could unpack to gigabytes
            async for chunk in response.aiter_raw():
                meter.count(chunk)
                lifter.feed(chunk)
            return lifter.finish()

    def _headers(self, action: str, body: bytes) -> dict[str, str]:
        timestamp, credentials = int(time.time()), self._credentials.current()
        signed = {"content-type": CONTENT_TYPE, "host": self._url.netloc.decode(), "x-tc-action": action}
        headers = {
            "Content-Type": CONTENT_TYPE,
            "X-TC-Action": action,
            "X-TC-Version": VERSION,
            "X-TC-Timestamp": str(timestamp),
            "Authorization": authorization(
                credentials, service="faceid", headers=signed, body=body, timestamp=timestamp
            ),
        }
        return headers | ({"X-TC-Token": credentials.token} if credentials.token else {})


def _enhanced(info_type: InfoType, enhanced: Enhanced) -> tuple[str, dict[str, object]]:
    """The action and what it is asked for: not for data on intention, which `"0"` includes and nobody keeps."""
    options = {
        "BestFramesCount": enhanced.best_frames if Part.BEST_FRAME in info_type.parts else 0,
        "IsCutIdCardImage": enhanced.cut_id_card and Part.ID_CARD in info_type.parts,
        "IsNeedIdCardAvatar": enhanced.id_card_avatar and Part.ID_CARD in info_type.parts,
    }
    wanted = "".join(Part) if info_type == EVERYTHING else str(info_type)
    return "GetDetectInfoEnhanced", {"InfoType": wanted} | {name: value for name, value in options.items() if value}


def _url(endpoint: str) -> httpx.URL:
    try:
        url = httpx.URL(endpoint if "://" in endpoint else f"https://{endpoint}")
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo:  # httpx would sign with the latter
        raise SetUpError("FACEID_ENDPOINT must be a host name or an http(s) address.")
    return url.copy_with(path="/", query=None, fragment=None)


class _NoAnswerError(Exception):
    """There will be no answer; the argument is the code to put on record."""


class _Meter:
    """Counts the bytes of one answer and ends it at the cap."""

    def __init__(self, cap: int) -> None:
        self.bytes = 0
        self._cap = cap

    def count(self, chunk: bytes) -> None:
        self.bytes += len(chunk)
        if self.bytes > self._cap:
            raise _NoAnswerError(codes.TOO_LARGE)


async def _told(asked: Awaitable[Lifted], read: Callable[[Lifted], AnyAnswer]) -> tuple[AnyAnswer | None, str | None]:
    """The answer and the error code of a call, whatever happened to it."""
    try:
        answer = read(await asked)
    except _NoAnswerError as error:
        return None, str(error)
    except (TimeoutError, httpx.TimeoutException):
        return None, codes.TIMED_OUT
    except httpx.TransportError:
        return None, codes.CONNECTION_FAILED
    except DecodeError:
        return None, codes.UNREADABLE
    except UnavailableError:
        return None, MEDIA_NOT_STORED
    return answer, answer.error.code if answer.error else None
