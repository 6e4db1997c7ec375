"""The cost of one retrieval, a 12 MB video and three pictures, compared with the official SDK and with a floor."""

import asyncio
import json
import secrets
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

from app.sealing.keyring import KeyRing
from app.sealing.personal_data import PersonalDataCipher
from benchmarks import harness, upstream
from benchmarks.figures import Cost, Line
from tests.support.rows import MINIMAL
from tests.support.servers import S3, s3
from tests.support.service import settings_for

VIDEO_BYTES = 12_000_000
_LONGEST_SECONDS = 180


async def lines(folder: Path, *, rounds: int, count: int, video_bytes: int = VIDEO_BYTES) -> AsyncIterator[Line]:
    """Measures `count` results per contender and round."""
    async with upstream.running(folder, video_bytes) as url:
        alone = await _interleaved(
            folder, url, ("ours", "sdk", "sdk-safe", "floor", "floor-unsealed"), rounds, count, at_once=1
        )
        # The other figures vary less.
        rounds = -(-rounds // 2)
        together = await _interleaved(folder, url, ("ours", "sdk", "sdk-safe"), rounds, max(count, 16) * 2, at_once=16)
        with s3() as server:
            bucket = await _interleaved(folder, url, ("ours", "sdk"), rounds, count, at_once=1, server=server)
    async with upstream.running(folder, video_bytes, tls=True, megabits=100) as url:
        trust = folder / "certificate.pem"
        slow = await _interleaved(folder, url, ("ours", "sdk"), rounds, max(count // 4, 2), at_once=1, trust=trust)
    sealing = max(alone["floor"].cpu - alone["floor-unsealed"].cpu, 0.0)
    with_and_without = alone["ours"].cpu * 1000, (alone["ours"].cpu - sealing) * 1000
    for line in (
        *_beside("retrieval", alone, cpu=5, memory=20),
        *_beside("retrieval, 16 at once", together, cpu=4, memory=15),
        _cpu("retrieval over TLS at 100 Mbit/s", slow, "sdk", times=2),
        _cpu("retrieval into S3", bucket, "sdk"),
        Line.at_most("retrieval above the floor", "ms CPU", *_pair(alone, "floor"), "floor", most=2.5),
        Line.plain("opening a full record", "ms", opening_ms(folder), most=1),
        Line.at_most("retrieval with sealing", "ms CPU", *with_and_without, "without", most=1.1),
    ):
        yield line


def opening_ms(folder: Path, times: int = 1000) -> float:
    """Returns the milliseconds to decrypt all personal values of one verification's text."""
    settings = settings_for(folder, "")
    cipher = PersonalDataCipher(KeyRing.create(settings.keyring.keyring_path))
    verification = replace(MINIMAL, sealed_key=cipher.new_key(MINIMAL.client, MINIMAL.biz_token))
    detection = upstream.decoded(upstream.answer_of(1))
    text = cipher.seal_text(verification, detection)
    start = time.perf_counter()
    for _ in range(times):
        cipher.open_text(verification, text)
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
    contenders: Sequence[str],
    rounds: int,
    count: int,
    *,
    at_once: int,
    trust: Path | None = None,
    server: S3 | None = None,
) -> Mapping[str, Cost]:
    """Returns the median costs of each contender per result. The contenders take turns.

    Nothing that was stored is deleted: ext4 avoids recently freed inodes, which would slow down the next contender.
    """
    taken: defaultdict[str, list[Cost]] = defaultdict(list)
    for _ in range(rounds):
        for contender in contenders:
            arguments = [contender, url, await asyncio.to_thread(mkdtemp, dir=folder), str(count), str(at_once)]
            arguments += ["--trust", str(trust)] if trust else []
            arguments += ["--bucket", json.dumps(bucket_of(server))] if server else []
            taken[contender].append(await _run(arguments))
    return {
        contender: Cost(
            cpu=statistics.median(cost.cpu for cost in costs) / count,
            seconds=statistics.median(cost.seconds for cost in costs) / count,
            peak_mb=statistics.median(cost.peak_mb for cost in costs),
        )
        for contender, costs in taken.items()
    }


async def _run(arguments: Sequence[str]) -> Cost:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.contenders", *arguments),
        stdout=asyncio.subprocess.PIPE,
        env=harness.environment(),
    )
    try:
        async with asyncio.timeout(_LONGEST_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise RuntimeError(f"The contender {arguments[0]} failed.")
    return Cost(**json.loads(output))


def bucket_of(server: S3) -> Mapping[str, str]:
    """Returns settings for a new prefix in the bucket. The secret is plain text."""
    return {
        "media_url": f"s3://{server.bucket}/{secrets.token_hex(4)}",
        "aws_endpoint_url": server.endpoint,
        "aws_access_key_id": server.access_key_id,
        "aws_secret_access_key": server.secret_access_key,
    }
