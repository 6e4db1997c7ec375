"""The simulator as an ASGI application, for any server, or in process by `httpx.ASGITransport`.

    POST /                      the API: the action in `X-TC-Action`, status 200, errors in the body
    GET  /_simulator/ledger     the latest 10,000 requests, and the peak of requests within one second

The scenario `cut` needs a real server: in process there is no connection to close.
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

from simulator.answers import Subject, detect_info, enhanced_info
from simulator.authentication import authenticate
from simulator.bills import Bill, Bills
from simulator.ledger import Entry, Ledger
from simulator.options import SimulatorOptions
from simulator.requests import (
    ACTIONS,
    BillDetailsRequest,
    DetectAuthRequest,
    DetectInfoEnhancedRequest,
    DetectInfoRequest,
    TencentError,
    decode_request,
    parts_of,
)
from simulator.scenarios import Scenario, scenario_in_extra, scenario_of

VERSION = "2018-03-01"
MAX_BODY_BYTES = 10 * 1024 * 1024
"""Tencent's limit for requests signed by TC3-HMAC-SHA256."""
RESULT_SECONDS = 3 * 24 * 3_600
"""How long after DetectAuth a result is available."""


def create_simulator(options: SimulatorOptions | None = None) -> "Simulator":
    """Creates a simulator with the given or the default options."""
    return Simulator(options or SimulatorOptions())


@dataclass(slots=True)
class _Token:
    """A known BizToken. `calls` counts the calls that played its scenario."""

    subject: Subject
    scenario: str
    expires_at: float = inf
    calls: int = 0


class Simulator:
    """An ASGI application that answers as FaceID. `ledger` has the requests it received."""

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
        """Adds a charge for a person who passed at that (aware) instant. No call for the token is needed."""
        self._bills.add(
            Bill(subject=Subject(biz_token=biz_token), scenario=Scenario(), rule_id=rule_id, at=at.timestamp())
        )

    def expect(self, biz_token: str, scenario: str, first_attempt_at: datetime) -> None:
        """Plays a scenario for a BizToken as if DetectAuth had returned it, with attempts from that instant on."""
        subject = Subject(biz_token=biz_token, first_attempt_ms=int(first_attempt_at.timestamp() * 1000))
        self._remember(_Token(subject, scenario))

    async def _respond(self, request: Request) -> Response:
        entry = self.ledger.open(at=self.options.clock(), action=request.headers.get("x-tc-action", "")[:64])
        try:
            answer = await self._answer(request, entry)
        except TencentError as error:
            entry.code = error.code
            answer = {"Error": {"Code": error.code, "Message": error.message}}
        return _response(
            msgspec.json.encode({"Response": {**answer, "RequestId": self.options.new_request_id()}}),
            entry.scenario or "",
        )

    async def _answer(self, request: Request, entry: Entry) -> dict[str, object]:
        body = await _read_body(request)
        authenticate(request.headers, body, known=self.options.credentials, now=entry.at)
        if request.headers["x-tc-version"] != VERSION:
            raise TencentError("NoSuchVersion", f"The version of this API is {VERSION}.")
        if entry.action not in ACTIONS:
            raise TencentError("InvalidAction", "The action does not exist.")
        if not self.ledger.admit(entry):
            raise TencentError("RequestLimitExceeded", "The rate limit of this action is exceeded.")
        parameters = decode_request(entry.action, body)
        if isinstance(parameters, DetectAuthRequest):
            return self._detect_auth(parameters, entry)
        if isinstance(parameters, BillDetailsRequest):
            return self._bills.page(parameters, size=self.options.bills_per_page, now=entry.at)
        return await self._detect_info(parameters, entry)

    def _detect_auth(self, parameters: DetectAuthRequest, entry: Entry) -> dict[str, object]:
        biz_token = entry.biz_token = str(uuid4()).upper()
        subject = Subject(biz_token=biz_token, extra=parameters.extra, id_card=parameters.id_card, name=parameters.name)
        token = _Token(subject, scenario_in_extra(parameters.extra), expires_at=entry.at + RESULT_SECONDS)
        self._remember(token)
        # A person whose scenario starts with a verdict has finished, even if no call ever asks for the result.
        self._charge(token, scenario_of(token.scenario, default=self.options.scenario), parameters.rule_id, entry.at)
        return {"Url": f"https://faceid.invalid/h5?BizToken={biz_token}", "BizToken": biz_token}

    async def _detect_info(self, parameters: DetectInfoRequest, entry: Entry) -> dict[str, object]:
        """Plays the token's scenario for GetDetectInfo or GetDetectInfoEnhanced."""
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
        self._charge(token, scenario, parameters.rule_id, entry.at)
        await asyncio.sleep((self.options.latency_ms + scenario.latency_ms) / 1000)
        if scenario.error:
            raise TencentError(scenario.error, f"The scenario plays {scenario.error}.")
        video_bytes = self.options.video_bytes
        if not isinstance(parameters, DetectInfoEnhancedRequest):
            return {"DetectInfo": detect_info(token.subject, scenario, parts=parts, video_bytes=video_bytes)}
        if parameters.encryption or parameters.is_encrypt_response:
            raise TencentError("UnsupportedOperation", "The simulator does not encrypt.")
        return enhanced_info(token.subject, scenario, parts=parts, request=parameters, video_bytes=video_bytes)

    def _charge(self, token: _Token, scenario: Scenario, rule_id: str, at: float) -> None:
        if scenario.is_charged:
            self._bills.add(Bill(subject=token.subject, scenario=scenario, rule_id=rule_id, at=at))

    def _remember(self, token: _Token) -> _Token:
        self._tokens[token.subject.biz_token] = token
        if len(self._tokens) > self.options.max_tokens:
            self._tokens.popitem(last=False)
        return token

    async def _show_ledger(self, _request: Request) -> Response:
        answer = {"peak_per_second": self.ledger.peaks, "entries": list(self.ledger.entries)}
        return Response(msgspec.json.encode(answer), media_type="application/json")


class _CutResponse(Response):
    """Announces the whole body and sends half of it. The server then closes the connection."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": half, "more_body": True})


def _response(content: bytes, scenario: str) -> Response:
    """Returns the content, or a transport fault if the scenario plays one."""
    if scenario.startswith("http"):
        return HTMLResponse("<html><body>The scenario plays a gateway.</body></html>", status_code=int(scenario[4:]))
    if scenario == "garbage":
        return Response(b"<<< the scenario plays garbage >>>", media_type="application/json")
    if scenario == "cut":
        return _CutResponse(content, media_type="application/json")
    return Response(content, media_type="application/json")


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise TencentError("RequestSizeLimitExceeded", f"A request has at most {MAX_BODY_BYTES} bytes.")
    except ClientDisconnect as error:
        raise TencentError("InvalidRequest", "The client disconnected before its request was complete.") from error
    return bytes(body)
