"""What a simulator can be told at its start."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from app.errors import SetUpError
from app.faceid.signing import Credentials
from app.simulator.media import VIDEO_BYTES
from app.simulator.scenarios import is_scenario

DEMO_CREDENTIALS = Credentials("AKIDSIMULATOR", "simulator-key-for-demos-only")
"""The key pair that a simulator knows if it is told none; it opens nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions:
    """How the simulator behaves.

    Args:
        credentials: the key pairs it knows; where one has a token, `X-TC-Token` must be that.
        scenario: what tokens that ask for nothing play, in the grammar of `app.simulator.scenarios`.
        requests_per_second: GetDetectInfo calls let in within any one second; 0 for no limit. Tencent's default is 50.
        enhanced_requests_per_second: the same for GetDetectInfoEnhanced. Tencent's default is 100.
        bill_requests_per_second: the same for GetWeChatBillDetails. Tencent's default is 20.
        bills_per_page: BizTokens on one page of GetWeChatBillDetails.
        video_bytes: size of every video, reached by padding that players skip; never below the sample's own 0.7 MB.
        latency_ms: how long every answered call takes, on top of what its scenario says.
        max_tokens: how many BizTokens are remembered; beyond, the oldest is forgotten and begins anew, and is billed
            no more.
        clock: seconds since the epoch, for the five minutes of a signature, the 72 hours of a result, the quota and
            the day of a bill.

    Raises:
        SetUpError: there is no such scenario.
    """

    credentials: tuple[Credentials, ...] = (DEMO_CREDENTIALS,)
    scenario: str = "passed"
    requests_per_second: int = 50
    enhanced_requests_per_second: int = 100
    bill_requests_per_second: int = 20
    bills_per_page: int = 100
    video_bytes: int = VIDEO_BYTES
    latency_ms: int = 0
    max_tokens: int = 100_000
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        if not is_scenario(self.scenario):
            raise SetUpError(
                "The simulator knows no scenario of that name; try passed, failed-2016, unfinished-2 or throttled-3"
            )
