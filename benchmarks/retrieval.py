"""What one retrieval costs: a 12 MB video and three pictures, beside the official SDK, and above the floor."""

import asyncio
import json
import secrets
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from tempfile import mkdtemp

from app.faceid.decode import decode_detect_info
from app.faceid.lifter import Lifter
from app.sealing.keyring import KeyRing
from app.services.newcomers import Newcomers
from app.services.vault import Vault
from benchmarks import stage, upstream
from benchmarks.figures import Cost, Line
from tests.support.servers import S3, s3
from tests.support.service import settings_for

VIDEO_BYTES = 12_000_000
_LONGEST_SECONDS = 180


async def lines(folder: Path, *, rounds: int, count: int, video_bytes: int = VIDEO_BYTES) -> AsyncIterator[Line]:
    """The figures, in the order in which they are measured; `count` results by each way and round."""
    async with upstream.running(folder, video_bytes) as url:
        alone = await _interleaved(
            folder, url, ("ours", "unsealed", "sdk", "sdk-safe", "floor"), rounds, count, at_once=1
        )
        rounds = -(-rounds // 2)  # the rest is less in doubt
        together = await _interleaved(folder, url, ("ours", "sdk", "sdk-safe"), rounds, max(count, 16) * 2, at_once=16)
        with s3() as server:
            bucket = await _interleaved(folder, url, ("ours", "sdk"), rounds, count, at_once=1, server=server)
    async with upstream.running(folder, video_bytes, tls=True, megabits=100) as url:
        trust = folder / "certificate.pem"
        slow = await _interleaved(folder, url, ("ours", "sdk"), rounds, max(count // 4, 2), at_once=1, trust=trust)
    for line in (
        *_beside("retrieval", alone, cpu=5, memory=20),
        *_beside("retrieval, 16 at once", together, cpu=4, memory=15),
        _cpu("retrieval over TLS at 100 Mbit/s", slow, "sdk", times=2),
        _cpu("retrieval into S3", bucket, "sdk"),
        Line.at_most("retrieval above the floor", "ms CPU", *_pair(alone, "floor"), "floor", most=2.5),
        Line.plain("opening a full record", "ms", opening_ms(folder), most=1),
        Line.at_most("retrieval with sealing", "ms CPU", *_pair(alone, "unsealed"), "without", most=1.1),
    ):
        yield line


def opening_ms(folder: Path, times: int = 1000) -> float:
    """What it takes to open all that is sealed of one verification's text."""
    settings = settings_for(folder, "")
    vault, lifter = Vault(KeyRing.create(settings.keyring_path)), Lifter(BytesIO)
    lifter.feed(upstream.answer_of(1))
    detection, _ = decode_detect_info(lifter.finish())
    verification = Newcomers(settings, vault).new("bench", "1", datetime.now(UTC), client="bench")
    if detection is None:
        raise RuntimeError("The answer has no text.")
    text = vault.seal_text(verification, detection)
    start = time.perf_counter()
    for _ in range(times):
        vault.open_text(verification, text)
    return (time.perf_counter() - start) / times * 1000


def _beside(what: str, costs: Mapping[str, Cost], *, cpu: float, memory: float) -> Sequence[Line]:
    found = []
    for peer in ("sdk", "sdk-safe"):
        found.append(_cpu(what, costs, peer, times=cpu))
        figures = costs["ours"].peak_mb, costs[peer].peak_mb
        found.append(Line.cheaper(f"{what}, peak memory", "MB", *figures, peer, times=memory))
    return found


def _cpu(what: str, costs: Mapping[str, Cost], peer: str, *, times: float | None = None) -> Line:
    return Line.cheaper(what, "ms CPU", *_pair(costs, peer), peer, times=times)


def _pair(costs: Mapping[str, Cost], peer: str) -> tuple[float, float]:
    return costs["ours"].cpu * 1000, costs[peer].cpu * 1000


async def _interleaved(
    folder: Path,
    url: str,
    ways: Sequence[str],
    rounds: int,
    count: int,
    *,
    at_once: int,
    trust: Path | None = None,
    server: S3 | None = None,
) -> Mapping[str, Cost]:
    """The medians of each way, per result; the ways take turns.

    What one has stored stays: ext4 goes around inodes that were freed a minute ago, at the cost of who comes next.
    """
    taken: defaultdict[str, list[Cost]] = defaultdict(list)
    for _ in range(rounds):
        for way in ways:
            arguments = [way, url, await asyncio.to_thread(mkdtemp, dir=folder), str(count), str(at_once)]
            arguments += ["--trust", str(trust)] if trust else []
            arguments += ["--bucket", json.dumps(bucket_of(server))] if server else []
            taken[way].append(await _went(arguments))
    return {
        way: Cost(
            cpu=statistics.median(cost.cpu for cost in costs) / count,
            seconds=statistics.median(cost.seconds for cost in costs) / count,
            peak_mb=statistics.median(cost.peak_mb for cost in costs),
        )
        for way, costs in taken.items()
    }


async def _went(arguments: Sequence[str]) -> Cost:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.ways", *arguments),
        stdout=asyncio.subprocess.PIPE,
        env=stage.environment(),
    )
    try:
        async with asyncio.timeout(_LONGEST_SECONDS):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise RuntimeError(f"The way {arguments[0]} broke off.")
    return Cost(**json.loads(told))


def bucket_of(server: S3) -> Mapping[str, str]:
    """Settings for a place of its own in the server's bucket; the secret is to be made one."""
    return {
        "media_url": f"s3://{server.bucket}/{secrets.token_hex(4)}",
        "aws_endpoint_url": server.endpoint,
        "aws_access_key_id": server.access_key_id,
        "aws_secret_access_key": server.secret_access_key,
    }
