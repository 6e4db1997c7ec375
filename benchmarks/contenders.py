"""Contenders that retrieve one result many times, each in its own process.

`python -m benchmarks.contenders CONTENDER …`:

`ours`            the worker with everything switched on: claim, quota, call, lift, digest, seal, put, record
`sdk`             the official SDK as its documentation shows it: JSON, JSON, base64, plain files, one insert
`sdk-safe`        the same with a digest and AES-GCM of each media item, as we do
`floor`           receive, decode, digest, seal, write; no parsing, no database
`floor-unsealed`  the same without sealing; the difference to `floor` is the cost of sealing

It prints the cost as JSON, all results together.
"""

import argparse
import asyncio
import base64
import hashlib
import http.client
import json
import logging
import os
import secrets
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
import pybase64
import structlog
import uvloop
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from app.domain.decision import Store
from app.factory import open_services
from app.observability import STEPS
from app.sealing.blobs import BlobSealer
from app.storage.media.spool import Spool
from app.worker import working
from benchmarks.figures import Cost, measured
from benchmarks.upstream import MEDIA_PATH
from tests.support.service import actor, settings_for

# A multiple of four, for base64.
_PIECE_BYTES = 64 * 1024
# Kept until the process ends, because closing them is not part of the cost.
_OPEN: list[object] = []
_POLL_SECONDS = 0.05
_MAX_SECONDS = 600.0
_STORED = {"step": Store.__name__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The task: `count` results from `url`, `at_once` at a time, into `folder` or the bucket."""

    url: str
    folder: Path
    count: int
    at_once: int
    bucket: Mapping[str, str] | None = None


def ours(task: Task) -> Cost:
    """Runs the worker as in production."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_worked(task))


async def _worked(task: Task) -> Cost:
    store: dict[str, Any] = {"media_url": (task.folder / "media").as_uri()}
    if task.bucket:
        store = {**task.bucket, "aws_secret_access_key": SecretStr(task.bucket["aws_secret_access_key"])}
    settings = settings_for(
        task.folder,
        task.url,
        worker_concurrency=task.at_once,
        faceid_requests_per_second=1000,
        **store,
    )
    async with open_services(settings) as services:
        for number in range(task.at_once + task.count):
            await services.intake.call_back(actor(), f"passed-{number}", "1", None)
        async with working(services):
            # Opens connections and builds statements.
            await stored(task.at_once)
            with measured() as cost:
                await stored(task.at_once + task.count)
    return cost


def count_stored() -> int:
    """Returns how many results this process has stored, by its metric, because a query would cost more."""
    samples = (sample for metric in STEPS.collect() for sample in metric.samples)
    stored_samples = (sample for sample in samples if sample.name.endswith("_total") and sample.labels == _STORED)
    return int(sum(sample.value for sample in stored_samples))


async def stored(count: int) -> None:
    """Waits until so many results are stored.

    Raises:
        TimeoutError: that took too long.
    """
    end = time.monotonic() + _MAX_SECONDS
    while time.monotonic() < end:
        if count_stored() >= count:
            return
        await asyncio.sleep(_POLL_SECONDS)
    raise TimeoutError


def sdk(task: Task, *, is_safe: bool = False) -> Cost:
    """Runs the official SDK in as many threads as there are results at once."""
    from tencentcloud.common.credential import Credential
    from tencentcloud.common.profile.client_profile import ClientProfile
    from tencentcloud.common.profile.http_profile import HttpProfile
    from tencentcloud.faceid.v20180301 import models
    from tencentcloud.faceid.v20180301.faceid_client import FaceidClient

    parts = urlsplit(task.url)
    profile = ClientProfile(httpProfile=HttpProfile(protocol=parts.scheme, endpoint=parts.netloc, reqTimeout=60))
    client = FaceidClient(Credential("id", "key"), "", profile)
    database = sqlite3.connect(task.folder / "sdk.sqlite3", check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE result (token TEXT PRIMARY KEY, text TEXT)")
    put = _into_bucket(task.bucket) if task.bucket else _into_folder(task.folder)

    def one(number: int) -> str:
        request = models.GetDetectInfoRequest()
        request.BizToken, request.RuleId, request.InfoType = f"passed-{number}", "1", "0"
        info = json.loads(client.GetDetectInfo(request).DetectInfo)
        for group, name in (
            ("IdCardData", "OcrFront"),
            ("IdCardData", "OcrBack"),
            ("BestFrame", "BestFrame"),
            ("VideoData", "LivenessVideo"),
        ):
            content = base64.b64decode(info[group][name])
            if is_safe:
                hashlib.sha256(content).hexdigest()
                nonce = secrets.token_bytes(12)
                content = nonce + AESGCM(secrets.token_bytes(32)).encrypt(nonce, content, None)
            put(f"{number}-{name}", content)
        return json.dumps(info["Text"], ensure_ascii=False)

    with ThreadPoolExecutor(task.at_once) as pool:
        list(pool.map(one, range(-task.at_once, 0)))
        with measured() as cost:
            for number, text in enumerate(pool.map(one, range(task.count))):
                with database:
                    database.execute("INSERT INTO result VALUES (?, ?)", (str(number), text))
    return cost


def sdk_safe(task: Task) -> Cost:
    """Runs the official SDK with a digest and AES-GCM of each media item."""
    return sdk(task, is_safe=True)


def _into_folder(folder: Path) -> Callable[[str, bytes], None]:
    def put(name: str, content: bytes) -> None:
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    return put


def _into_bucket(bucket: Mapping[str, str]) -> Callable[[str, bytes], None]:
    """Returns a put by aioboto3 as its documentation shows it, in its own event loop."""
    import aioboto3

    loop = asyncio.new_event_loop()
    session = aioboto3.Session(
        aws_access_key_id=bucket["aws_access_key_id"], aws_secret_access_key=bucket["aws_secret_access_key"]
    )
    opened = session.client("s3", endpoint_url=bucket["aws_endpoint_url"], region_name="us-east-1")
    client: Any = loop.run_until_complete(opened.__aenter__())
    ThreadPoolExecutor(1).submit(loop.run_forever)
    _OPEN.append(client)
    name, _, prefix = bucket["media_url"].removeprefix("s3://").partition("/")

    def put(key: str, content: bytes) -> None:
        work = client.put_object(Bucket=name, Key=f"{prefix}/{key}", Body=content)
        asyncio.run_coroutine_threadsafe(work, loop).result()

    return put


def floor(task: Task, *, is_sealed: bool = True) -> Cost:
    """Does the least that has to be done with the bytes."""
    parts = urlsplit(task.url)
    connection = http.client.HTTPConnection(parts.netloc)
    spool = Spool(task.folder / "spool")

    def one() -> None:
        connection.request("GET", MEDIA_PATH)
        answer = connection.getresponse()
        with spool.new_file() as spool_file:
            sealer = BlobSealer(spool_file) if is_sealed else None
            target = sealer or spool_file
            while piece := answer.read(_PIECE_BYTES):
                target.write(pybase64.b64decode(piece, validate=True))
            if sealer:
                sealer.finish()
            spool_file.sync()

    one()
    with measured() as cost:
        for _ in range(task.count):
            one()
    return cost


def floor_unsealed(task: Task) -> Cost:
    """Does the same without sealing."""
    return floor(task, is_sealed=False)


CONTENDERS: Mapping[str, Callable[[Task], Cost]] = {
    "ours": ours,
    "sdk": sdk,
    "sdk-safe": sdk_safe,
    "floor": floor,
    "floor-unsealed": floor_unsealed,
}


def main() -> None:
    """Runs one contender and prints its cost."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("at_once", type=int)
    parser.add_argument("--trust", type=Path, help="the certificate to trust instead of the usual ones")
    parser.add_argument("--bucket", type=json.loads)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if arguments.trust:
        certifi.where = lambda: str(arguments.trust)
    task = Task(
        url=arguments.url,
        folder=arguments.folder,
        count=arguments.count,
        at_once=arguments.at_once,
        bucket=arguments.bucket,
    )
    sys.stdout.write(json.dumps(asdict(CONTENDERS[arguments.contender](task))))
    sys.stdout.flush()
    # The peers' threads and event loops need not end in order.
    os._exit(0)


if __name__ == "__main__":
    main()
