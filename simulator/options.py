"""Options of the simulator."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from simulator.authentication import KeyPair
from simulator.media import VIDEO_BYTES
from simulator.scenarios import is_scenario

DEMO_CREDENTIALS = KeyPair("AKIDSIMULATOR", "simulator-key-for-demos-only")
"""The default key pair. It gives access to simulators only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions:
    """How the simulator behaves.

    Args:
        credentials: the accepted key pairs; a pair with a token needs it in `X-TC-Token`.
        scenario: played for tokens that select none, in the grammar of `simulator.scenarios`.
        requests_per_second: rate limit of GetDetectInfo within any one second; 0 for none. Tencent's default is 50.
        enhanced_requests_per_second: the same for GetDetectInfoEnhanced. Tencent's default is 100.
        bill_requests_per_second: the same for GetWeChatBillDetails. Tencent's default is 20.
        bills_per_page: BizTokens on one page of GetWeChatBillDetails.
        video_bytes: size of every video, reached by padding that players skip; at least the sample's 0.7 MB.
        latency_ms: added to every call that plays a scenario, in addition to the scenario's own latency.
        max_tokens: number of BizTokens, and of bills, kept in memory. The oldest are forgotten first; a forgotten token
            starts its scenario again.
        clock: returns seconds since the epoch; used for signatures, expiry, rate limits and bills.
        new_request_id: returns the RequestId of an answer.

    Raises:
        ValueError: the scenario is unknown.
    """

    credentials: tuple[KeyPair, ...] = (DEMO_CREDENTIALS,)
    scenario: str = "passed"
    requests_per_second: int = 50
    enhanced_requests_per_second: int = 100
    bill_requests_per_second: int = 20
    bills_per_page: int = 100
    video_bytes: int = VIDEO_BYTES
    latency_ms: int = 0
    max_tokens: int = 100_000
    clock: Callable[[], float] = time.time
    new_request_id: Callable[[], str] = lambda: str(uuid4())

    def __post_init__(self) -> None:
        if not is_scenario(self.scenario):
            raise ValueError("Unknown scenario. Try passed, failed-2016, unfinished-2 or throttled-3.")
