"""No answer blocks the event loop or fills the memory: one beyond every real answer is rejected while it arrives."""

import asyncio
import io
import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from app.domain.detection import InfoType
from app.faceid.client import DetectAnswer
from app.faceid.error_codes import TOO_LARGE, UNREADABLE
from tests.faceid.test_client import client_of

MILLION = 10**6
BLOCK_SECONDS = 0.1
MEMORY_BYTES = 64 * 10**6
EMPTY, BACKSLASH = '""', "\\"
TEXTS = ",".join(f'"{"x" * 4000}"' for _ in range(16))
PICTURE = "/9j/" + "A" * 4096


def plain(text: str) -> bytes:
    return f'{{"Response":{{"DetectInfo":{{"Text":{{"ErrCode":0,{text}}}}}}}}}'.encode()


def wrapped(text: str) -> bytes:
    return json.dumps({"Response": {"DetectInfo": f'{{"Text":{{"ErrCode":0,{text}}}}}'}}).encode()


def keys(count: int) -> str:
    return ",".join(f'"k{number}":{number}' for number in range(count))


def media(count: int) -> str:
    return ",".join(f'"OcrFront":"{PICTURE}"' for _ in range(count))


TOO_MUCH: dict[str, Callable[[], str]] = {
    "40 MB of text": lambda: f'"ErrMsg":"{"x" * 40 * MILLION}"',
    "40 MB of white space": lambda: " " * 40 * MILLION + '"Name":"a"',
    "a million keys": lambda: keys(MILLION),
    "a million attempts": lambda: f'"Detail":{{"LivenessData":[{"{}," * MILLION}{{}}]}}',
    "100,000 keys with 2,000 media": lambda: f"{keys(100_000)},{media(2000)}",
    "2,000 media": lambda: media(2000),
    "a million short media": lambda: f'"BestFrames":[{",".join([EMPTY] * MILLION)}]',
    "millions of escapes": lambda: f'"Name":"{(BACKSLASH + "u0000") * 3 * MILLION}"',
    "millions of line breaks": lambda: f'"Name":"{(BACKSLASH + "n") * 3 * MILLION}"',
    "millions of backslashes": lambda: f'"Name":"{BACKSLASH * 2 * 3 * MILLION}"',
    "a million lists in lists": lambda: ",".join(f'"k{n}":{"[" * 30}{"]" * 30}' for n in range(33_000)),
    "a million lists": lambda: f'"New":[{"[]," * MILLION}[]]',
}
# Below every limit, at the largest cost.
ALLOWED: dict[str, Callable[[], str]] = {
    "a long text": lambda: f'"ErrMsg":"{"x" * MILLION}"',
    "2,000 keys": lambda: keys(2_000),
    "200 attempts with 10 keys": lambda: f'"LivenessDetail":[{",".join(["{" + keys(10) + "}"] * 200)}]',
    "escapes": lambda: f'"Name":"{(BACKSLASH + "u0000") * 6_000}"',
    "texts a little shorter than media": lambda: ",".join(f'"k{n}":[{TEXTS}]' for n in range(15)),
    "lists": lambda: f'"New":[{"[]," * 4_000}[]]',
    "numbers in lists": lambda: ",".join(f'"k{n}":[{",".join(["1.5e300"] * 7)}]' for n in range(600)),
    "lists in lists": lambda: ",".join(f'"k{n}":{"[" * 30}{"]" * 30}' for n in range(400)),
    "escapes in a media item": lambda: f'"Avatar":"{(BACKSLASH + "/") * 3 * MILLION}"',
    "junk in a media item": lambda: f'"Avatar":"{"?" * 10 * MILLION}"',
    "line breaks in a media item": lambda: f'"Avatar":"{("A" * 76 + BACKSLASH + "r" + BACKSLASH + "n") * 100_000}"',
}


@contextmanager
def sending(body: bytes) -> Iterator[str]:
    """Serves one request from a thread of its own, so the client's event loop does nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                try:
                    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())
                    connection.sendall(body)
                except OSError:
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


async def longest_block(until: asyncio.Task[DetectAnswer[io.BytesIO]]) -> float:
    """Returns the longest time, in seconds of this thread's CPU, between two turns of the event loop."""
    longest, before = 0.0, time.thread_time()
    while not until.done():
        await asyncio.sleep(0.001)
        longest, before = max(longest, (now := time.thread_time()) - before), now
    return longest


async def fetch(url: str) -> DetectAnswer[io.BytesIO]:
    async with client_of(url, max_bytes=48 * 2**20) as client:
        return await client.get_detect_info(biz_token="a", rule_id="1", info_type=InfoType("0"), open_sink=io.BytesIO)


@pytest.mark.parametrize("spelled", [plain, wrapped])
@pytest.mark.parametrize("name", TOO_MUCH)
async def test_answer_beyond_every_real_one_is_rejected_early(name: str, spelled: Callable[[str], bytes]) -> None:
    with sending(spelled(TOO_MUCH[name]())) as url:
        task = asyncio.create_task(fetch(url))
        blocked = await longest_block(task)

    call = (await task).call
    assert call.error_code == TOO_LARGE
    assert call.bytes_received < 16 * MILLION
    assert blocked < BLOCK_SECONDS


@pytest.mark.parametrize("spelled", [plain, wrapped])
@pytest.mark.parametrize("name", ALLOWED)
async def test_costliest_answer_within_the_limits_blocks_nothing(name: str, spelled: Callable[[str], bytes]) -> None:
    with sending(spelled(ALLOWED[name]())) as url:
        task = asyncio.create_task(fetch(url))
        blocked = await longest_block(task)

    assert (await task).call.error_code is None
    assert blocked < BLOCK_SECONDS


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
