"""Ways to call a simulator, over a real server, in process and by the official SDK, and what to ask it for."""

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from threading import Thread
from typing import Any

import httpx
import uvicorn
from tencentcloud.common.credential import Credential
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.faceid.v20180301 import models
from tencentcloud.faceid.v20180301.faceid_client import FaceidClient

from app.faceid import signing
from simulator.authentication import KeyPair
from simulator.options import DEMO_CREDENTIALS, SimulatorOptions
from simulator.server import Simulator, create_simulator

NO_QUOTA = SimulatorOptions(requests_per_second=0, enhanced_requests_per_second=0, bill_requests_per_second=0)
INFO_TYPES = ["0", *("".join(digits) for count in range(1, 5) for digits in combinations("1234", count)), "41"]
SCENARIOS = [
    *("passed-1", "failed-1001-1", "failed-2016-1", "failed-302-1", "unfinished-1", "null17-1", "novideo-1"),
    *("slashes-1", "latency-1-passed-1", "CE661F1A-0F1E-45BD-BE13-34C05CEA7681"),
]
ERROR_CODES = [
    *("InternalError", "FailedOperation.UnKnown", "FailedOperation.DetectEngineSystemError", "ServiceUnavailable"),
    *("ResourceUnavailable", "ResourceInsufficient", "RequestLimitExceeded", "LimitExceeded"),
    *("RequestLimitExceeded.IPLimitExceeded", "AuthFailure.SignatureExpire", "ResponseSizeLimitExceeded"),
    *("UnauthorizedOperation", "UnauthorizedOperation.ActivateError", "UnauthorizedOperation.Activating"),
    *("UnauthorizedOperation.Arrears", "UnauthorizedOperation.NonAuthorize", "UnauthorizedOperation.Nonactivated"),
    *("AuthFailure.InvalidAuthorization", "AuthFailure.InvalidSecretId", "AuthFailure.MFAFailure"),
    *("AuthFailure.SecretIdNotFound", "AuthFailure.SignatureFailure", "AuthFailure.TokenFailure"),
    *("AuthFailure.UnauthorizedOperation", "IpInBlacklist", "IpNotInWhitelist"),
    *("InvalidParameterValue.RuleIdNotExist", "InvalidParameterValue.RuleIdDisabled"),
    *("FailedOperation.StsUnAuthErrError", "InvalidParameterValue.BizTokenExpired"),
    *("InvalidParameterValue.BizTokenIllegal", "InvalidParameter", "InvalidParameterValue", "MissingParameter"),
    *("InvalidAction", "NoSuchVersion", "NoSuchProduct", "UnknownParameter", "UnsupportedOperation"),
    *("UnsupportedProtocol", "UnsupportedRegion", "RequestSizeLimitExceeded", "ActionOffline", "InvalidRequest"),
]


@dataclass(frozen=True)
class LiveSimulator:
    """A simulator behind a real server on a loopback port."""

    simulator: Simulator
    port: int

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.endpoint}"

    def official_client(self, credentials: KeyPair = DEMO_CREDENTIALS) -> FaceidClient:
        """Returns the official SDK's client, with its retries off, which is their default."""
        http = HttpProfile(protocol="http", endpoint=self.endpoint, reqTimeout=20)
        credential = Credential(credentials.secret_id, credentials.secret_key, credentials.token)
        return FaceidClient(credential, "", ClientProfile(httpProfile=http))


@contextmanager
def live_simulator(options: SimulatorOptions = NO_QUOTA) -> Iterator[LiveSimulator]:
    """Serves a simulator from a thread of its own; clients queue at the open socket until it is up."""
    simulator = create_simulator(options)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(simulator, log_config=None, access_log=False, lifespan="off"))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield LiveSimulator(simulator, listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


def request_for(biz_token: str, info_type: str | None = None) -> models.GetDetectInfoRequest:
    """Returns a request of the official SDK."""
    request = models.GetDetectInfoRequest()
    request.BizToken, request.RuleId, request.InfoType = biz_token, "1", info_type
    return request


def authorization(credentials: KeyPair, headers: Mapping[str, str], body: bytes, timestamp: int) -> str:
    """Signs with the code of the app, which the simulator does not share."""
    signer = signing.Credentials(credentials.secret_id, credentials.secret_key)
    return signing.authorization(signer, service="faceid", headers=headers, body=body, timestamp=timestamp)


@dataclass
class Clock:
    """A clock that a test sets."""

    now: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Caller:
    """An independent client, in process. Its headers and its body can be changed after signing."""

    simulator: Simulator
    credentials: KeyPair = DEMO_CREDENTIALS

    def headers(self, action: str, body: bytes, *, at: float | None = None) -> dict[str, str]:
        timestamp = int(self.simulator.options.clock() if at is None else at)
        signed = {"content-type": "application/json", "host": "faceid.test"}
        return {
            **signed,
            "x-tc-action": action,
            "x-tc-version": "2018-03-01",
            "x-tc-timestamp": str(timestamp),
            "authorization": authorization(self.credentials, signed, body, timestamp),
        }

    async def post(self, headers: Mapping[str, str], body: bytes) -> httpx.Response:
        transport = httpx.ASGITransport(self.simulator)
        async with httpx.AsyncClient(transport=transport, base_url="http://faceid.test") as client:
            return await client.post("/", headers=headers, content=body)

    async def call(self, action: str, parameters: object) -> dict[str, Any]:
        """Returns the `Response` of a signed call."""
        body = json.dumps(parameters).encode()
        answer: dict[str, Any] = (await self.post(self.headers(action, body), body)).json()["Response"]
        return answer

    async def code(self, action: str, parameters: object) -> str | None:
        """Returns the error code of a signed call, or None if it succeeds."""
        answer = await self.call(action, parameters)
        return answer["Error"]["Code"] if "Error" in answer else None
