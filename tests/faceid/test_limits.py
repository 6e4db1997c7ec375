"""No answer fills the memory: one beyond every real answer is rejected while it arrives.

`make bench` measures how long such answers block the event loop.
"""

import io
import tracemalloc
from collections.abc import Callable

import pytest

from app.domain.detection import InfoType
from app.faceid.client import DetectAnswer
from app.faceid.error_codes import TOO_LARGE, UNREADABLE
from tests.support.hostile import ALLOWED, MILLION, TOO_MUCH, plain, sending, wrapped
from tests.support.tencent import client_of

MEMORY_BYTES = 64 * MILLION


async def fetch(url: str) -> DetectAnswer[io.BytesIO]:
    async with client_of(url, max_bytes=48 * 2**20) as client:
        return await client.get_detect_info(biz_token="a", rule_id="1", info_type=InfoType("0"), open_sink=io.BytesIO)


@pytest.mark.parametrize("spelled", [plain, wrapped])
@pytest.mark.parametrize("name", TOO_MUCH)
async def test_answer_beyond_every_real_one_is_rejected_early(name: str, spelled: Callable[[str], bytes]) -> None:
    with sending(spelled(TOO_MUCH[name]())) as url:
        call = (await fetch(url)).call

    assert call.error_code == TOO_LARGE
    assert call.bytes_received < 16 * MILLION


@pytest.mark.parametrize("spelled", [plain, wrapped])
@pytest.mark.parametrize("name", ALLOWED)
async def test_costliest_answer_within_the_limits_is_accepted(name: str, spelled: Callable[[str], bytes]) -> None:
    with sending(spelled(ALLOWED[name]())) as url:
        assert (await fetch(url)).call.error_code is None


@pytest.mark.parametrize("name", TOO_MUCH)
async def test_memory_does_not_grow_with_what_is_rejected(name: str) -> None:
    with sending(wrapped(TOO_MUCH[name]())) as url:
        tracemalloc.start()
        call = (await fetch(url)).call
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert call.error_code == TOO_LARGE
    assert peak < MEMORY_BYTES


async def test_depth_bomb_is_unreadable() -> None:
    with sending(wrapped(f'"New":{"[" * 10_000}')) as url:
        assert (await fetch(url)).call.error_code == UNREADABLE
