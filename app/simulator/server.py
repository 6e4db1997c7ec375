"""The simulator as an ASGI application: it can be run by any server, or called in process by `httpx.ASGITransport`.

    POST /                      the API, as Tencent's: the action in `X-TC-Action`, status 200, errors in the body
    GET  /_simulator/ledger     the latest 10,000 requests, and how many arrived within any one second at most

The step `cut` needs a real server, since there is no connection to be closed in process.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from math import inf
from uuid import uuid4

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.simulator.answers import Subject, detect_info, enhanced_info
from app.simulator.bills import Bill, Bills
from app.simulator.gate import authenticate
from app.simulator.options import SimulatorOptions
from app.simulator.requests import (
    ACTIONS,
    BillDetailsRequest,
    DetectAuthRequest,
    DetectInfoEnhancedRequest,
    DetectInfoRequest,
    TencentError,
    decode_request,
    parts_of,
)
from app.simulator.scenarios import Scenario, scenario_in_extra, scenario_of
from app.simulator.traffic import Entry, Ledger

VERSION = "2018-03-01"
MAX_BODY_BYTES = 10 * 1024 * 1024
"""Tencent's limit for requests signed by TC3-HMAC-SHA256."""
RESULT_SECONDS = 3 * 24 * 3_600
"""How long a result can be pulled after DetectAuth."""


def create_simulator(options: SimulatorOptions | None = None) -> "Simulator":
    """A simulator with these options, or with the defaults: an ASGI application with a ledger."""
    return Simulator(options or SimulatorOptions())


@dataclass(slots=True)
class _Token:
    """What is remembered of a BizToken; `calls` are those that its scenario has seen."""

    subject: Subject
    scenario: str
    expires_at: float = inf
    calls: int = 0


class Simulator:
    """FaceID's place: give it to a server as an ASGI application; `ledger` tells who called."""

    def __init__(self, options: SimulatorOptions) -> None:
        self.options = options
        self.ledger = Ledger(
            {
                "GetDetectInfo": options.requests_per_second,
                "GetDetectInfoEnhanced": options.enhanced_requests_per_second,
                "GetWeChatBillDetails": options.bill_requests_per_second,
            }
        )
        self._bills = Bills(options.max_tokens)
        self._tokens: OrderedDict[str, _Token] = OrderedDict()
        self._asgi = Starlette(
            routes=[
                Route("/", self._respond, methods=["POST"]),
                Route("/_simulator/ledger", self._show_ledger),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection, as ASGI defines it."""
        await self._asgi(scope, receive, send)

    def bill(self, biz_token: str, rule_id: str, at: datetime) -> None:
        """Charges for a person who passed at that (aware) instant, though nobody has called or ever calls for it."""
        self._bills.add(
            Bill(subject=Subject(biz_token=biz_token), scenario=Scenario(), rule_id=rule_id, at=at.timestamp())
        )

    async def _respond(self, request: Request) -> Response:
        entry = self.ledger.open(at=self.options.clock(), action=request.headers.get("x-tc-action", "")[:64])
        try:
            answer = await self._answer(request, entry)
        except TencentError as error:
            entry.code = error.code
            answer = {"Error": {"Code": error.code, "Message": error.message}}
        content = msgspec.json.encode({"Response": {**answer, "RequestId": str(uuid4())}})
        return _deliver(content, entry.scenario or "")

    async def _answer(self, request: Request, entry: Entry) -> dict[str, object]:
        body = await _read(request)
        authenticate(request.headers, body, known=self.options.credentials, now=entry.at)
        if request.headers["x-tc-version"] != VERSION:
            raise TencentError("NoSuchVersion", f"The version of this API is {VERSION}.")
        if entry.action not in ACTIONS:
            raise TencentError("InvalidAction", "There is no such action.")
        if not self.ledger.admit(entry):
            raise TencentError("RequestLimitExceeded", "The calls of this second are used up.")
        parameters = decode_request(entry.action, body)
        if isinstance(parameters, DetectAuthRequest):
            return self._begin(parameters, entry)
        if isinstance(parameters, BillDetailsRequest):
            return self._bills.page(parameters, size=self.options.bills_per_page, now=entry.at)
        return await self._tell(parameters, entry)

    def _begin(self, parameters: DetectAuthRequest, entry: Entry) -> dict[str, object]:
        """DetectAuth: hands out a BizToken and remembers what it was told."""
        biz_token = entry.biz_token = str(uuid4()).upper()
        subject = Subject(biz_token=biz_token, extra=parameters.extra, id_card=parameters.id_card, name=parameters.name)
        scenario = scenario_in_extra(parameters.extra)
        self._remember(_Token(subject, scenario, expires_at=entry.at + RESULT_SECONDS))
        self._charge(subject, scenario_of(scenario, default=self.options.scenario), parameters.rule_id, entry.at)
        return {"Url": f"https://faceid.invalid/h5?BizToken={biz_token}", "BizToken": biz_token}

    async def _tell(self, parameters: DetectInfoRequest, entry: Entry) -> dict[str, object]:
        """GetDetectInfo and GetDetectInfoEnhanced: plays the token's scenario."""
        entry.biz_token, entry.info_type = parameters.biz_token, parameters.info_type
        is_enhanced = isinstance(parameters, DetectInfoEnhancedRequest)
        parts = parts_of(parameters.info_type, "123456" if is_enhanced else "1234")
        token = self._tokens.get(parameters.biz_token) or self._remember(
            _Token(Subject(biz_token=parameters.biz_token), parameters.biz_token)
        )
        if entry.at >= token.expires_at:
            raise TencentError("InvalidParameterValue.BizTokenExpired", "The BizToken has expired.")
        token.calls += 1
        scenario = scenario_of(token.scenario, call=token.calls, default=self.options.scenario)
        entry.scenario = scenario.name
        self._charge(token.subject, scenario, parameters.rule_id, entry.at)
        await asyncio.sleep((self.options.latency_ms + scenario.latency_ms) / 1000)
        return self._result(parameters, parts, token.subject, scenario)

    def _result(
        self, parameters: DetectInfoRequest, parts: frozenset[str], subject: Subject, scenario: Scenario
    ) -> dict[str, object]:
        if scenario.error:
            raise TencentError(scenario.error, f"The scenario plays {scenario.error}.")
        video_bytes = self.options.video_bytes
        if not isinstance(parameters, DetectInfoEnhancedRequest):
            return {"DetectInfo": detect_info(subject, scenario, parts=parts, video_bytes=video_bytes)}
        if parameters.encryption or parameters.is_encrypt_response:
            raise TencentError("UnsupportedOperation", "The simulator does not encrypt.")
        return enhanced_info(subject, scenario, parts=parts, request=parameters, video_bytes=video_bytes)

    def _charge(self, subject: Subject, scenario: Scenario, rule_id: str, at: float) -> None:
        """Once, when the person is first seen finished: at the start, where no step comes before the verdict."""
        if scenario.is_charged:
            self._bills.add(Bill(subject=subject, scenario=scenario, rule_id=rule_id, at=at))

    def _remember(self, token: _Token) -> _Token:
        self._tokens[token.subject.biz_token] = token
        if len(self._tokens) > self.options.max_tokens:
            self._tokens.popitem(last=False)
        return token

    async def _show_ledger(self, _request: Request) -> Response:
        answer = {"peak_per_second": self.ledger.peaks, "entries": list(self.ledger.entries)}
        return Response(msgspec.json.encode(answer), media_type="application/json")


class _CutResponse(Response):
    """Announces the whole body and sends half of it; the server then closes the connection."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": half, "more_body": True})


def _deliver(content: bytes, scenario: str) -> Response:
    """The answer, unless the scenario is a fault of the transport."""
    if scenario.startswith("http"):
        return HTMLResponse("<html><body>The scenario plays a gateway.</body></html>", status_code=int(scenario[4:]))
    if scenario == "garbage":
        return Response(b"<<< the scenario plays garbage >>>", media_type="application/json")
    respond = _CutResponse if scenario == "cut" else Response
    return respond(content, media_type="application/json")


async def _read(request: Request) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise TencentError("RequestSizeLimitExceeded", f"A request has at most {MAX_BODY_BYTES} bytes.")
    except ClientDisconnect as error:
        raise TencentError("InvalidRequest", "The client left before its request was complete.") from error
    return bytes(body)
