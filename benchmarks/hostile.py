"""The cost of a hostile Tencent: how long its answers block the event loop."""

import asyncio
import io
import secrets
import time
from collections.abc import AsyncIterator

from pydantic import SecretStr

from app.domain.detection import InfoType
from app.faceid.client import FaceIdClient
from app.faceid.credentials import FaceIdSettings
from benchmarks.figures import Line
from simulator.options import DEMO_CREDENTIALS
from tests.support.hostile import ALLOWED, TOO_MUCH, plain, sending, wrapped

_MOST_BLOCKED_MS = 100


async def lines(*, rounds: int, most: int | None = None) -> AsyncIterator[Line]:
    """Measures the longest turn of the event loop over all answers, as CPU of its thread. The best round counts.

    Args:
        rounds: how often each answer is read.
        most: how many answers of each kind are read; all by default.
    """
    for what, bodies in (("rejected", TOO_MUCH), ("accepted", ALLOWED)):
        spelled = [spell(body()) for body in [*bodies.values()][:most] for spell in (plain, wrapped)]
        longest = [min([await _blocked(body) for _ in range(rounds)]) for body in spelled]
        yield Line.plain(f"longest block, hostile answers that are {what}", "ms", max(longest), most=_MOST_BLOCKED_MS)


async def _blocked(body: bytes) -> float:
    """Returns the longest time between two turns of the event loop while the answer is read, in ms of CPU."""
    with sending(body) as url:
        reading = asyncio.create_task(_read(url))
        longest, before = 0.0, time.thread_time()
        while not reading.done():
            await asyncio.sleep(0.001)
            longest, before = max(longest, (now := time.thread_time()) - before), now
        await reading
    return longest * 1000


async def _read(url: str) -> None:
    settings = FaceIdSettings(
        tencentcloud_secret_id=DEMO_CREDENTIALS.secret_id,
        tencentcloud_secret_key=SecretStr(DEMO_CREDENTIALS.secret_key),
        faceid_endpoint=url,
        faceid_max_bytes=48 * 2**20,
    )
    async with FaceIdClient(settings, connections=1) as client:
        await client.get_detect_info(
            biz_token=secrets.token_hex(8), rule_id="1", info_type=InfoType("0"), open_sink=io.BytesIO
        )
