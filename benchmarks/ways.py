"""Ways of retrieving one result many times, each in a process of its own: `python -m benchmarks.ways WAY …`.

`ours`     the worker, everything switched on: claim, quota, call, lift, digest, seal, put, record
`unsealed` the same, but neither media nor fields are sealed
`sdk`      the official SDK as its documentation shows it: JSON, JSON, base64, plain files, one insert
`sdk-safe` the same with what we do besides: a digest and AES-GCM of each medium
`floor`    receive, decode, digest, seal, write; no parsing, no database

It prints the cost of each way as JSON, all results together.
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
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import certifi
import msgspec
import pybase64
import structlog
import uvloop
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from app.domain.access import OPERATOR
from app.domain.decision import Store
from app.factory import open_services
from app.observability import STEPS
from app.sealing.blobs import BlobSealer
from app.storage.media.draft import Draft, Spool
from app.worker import working
from benchmarks.figures import Cost, measured
from benchmarks.upstream import MEDIA_PATH
from tests.support.service import settings_for

_PIECE_BYTES = 64 * 1024
_OPEN: list[object] = []  # as long as the process lives: to close it in good order is nobody's cost
_POLL_SECONDS = 0.05  # each look costs us a tenth of a millisecond, which is none of the worker's


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be done: `count` results from `url`, `at_once` at a time, into `folder` or the bucket."""

    url: str
    folder: Path
    count: int
    at_once: int
    bucket: Mapping[str, str] | None = None


def ours(task: Task) -> Cost:
    """The worker, as it runs anywhere."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_worked(task))


def unsealed(task: Task) -> Cost:
    """The worker without what sealing costs."""
    with (
        patch("app.services.retrieve.BlobSealer", _PlainSink),
        patch("app.sealing.fields.Fields.seal", lambda _self, value, *_place: msgspec.json.encode(value)),
    ):
        return ours(task)


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
            await services.receive.call_back(OPERATOR, f"passed-{number}", "1", None)
        async with working(services):
            await stored(task.at_once)  # opens connections, makes statements
            with measured() as cost:
                await stored(task.at_once + task.count)
    return cost


def count_stored() -> int:
    """How many results this process has stored so far. The counter says it; to ask the database would cost."""
    return int(STEPS.labels(Store.__name__)._value.get())  # noqa: SLF001  # the registry's way costs more


async def stored(count: int) -> None:
    """Returns when so many results were stored."""
    while count_stored() < count:  # noqa: ASYNC110  # nothing tells
        await asyncio.sleep(_POLL_SECONDS)


class _PlainSink:
    """What a sealer looks like that seals nothing."""

    def __init__(self, sink: Draft) -> None:
        self.sink, self.key, self.size_bytes, self.head = sink, bytes(32), 0, b""

    def write(self, data: bytes) -> None:
        self.head += data[: 32 - len(self.head)]
        self.size_bytes += len(data)
        self.sink.write(data)

    def finish(self) -> None:
        """There is nothing to finish."""


def sdk(task: Task, *, is_safe: bool = False) -> Cost:
    """The official SDK, in as many threads as there are results at once."""
    from tencentcloud.common.credential import Credential  # noqa: PLC0415  # counts for this way alone
    from tencentcloud.common.profile.client_profile import ClientProfile  # noqa: PLC0415
    from tencentcloud.common.profile.http_profile import HttpProfile  # noqa: PLC0415
    from tencentcloud.faceid.v20180301 import models  # noqa: PLC0415
    from tencentcloud.faceid.v20180301.faceid_client import FaceidClient  # noqa: PLC0415

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
    """The official SDK, and a digest and a seal over each medium."""
    return sdk(task, is_safe=True)


def _into_folder(folder: Path) -> Callable[[str, bytes], None]:
    def put(name: str, content: bytes) -> None:
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    return put


def _into_bucket(bucket: Mapping[str, str]) -> Callable[[str, bytes], None]:
    """By aioboto3, in an event loop of its own, as its documentation shows it."""
    import aioboto3  # noqa: PLC0415  # counts for this way alone

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


def floor(task: Task) -> Cost:
    """The least that has to be done with the bytes."""
    parts = urlsplit(task.url)
    connection = http.client.HTTPConnection(parts.netloc)
    spool = Spool(task.folder / "spool")

    def one() -> None:
        connection.request("GET", MEDIA_PATH)
        answer = connection.getresponse()
        with spool.draft() as draft:
            sealer = BlobSealer(draft)
            while piece := answer.read(_PIECE_BYTES):  # a multiple of four
                sealer.write(pybase64.b64decode(piece, validate=True))
            sealer.finish()
            draft.sync()

    one()
    with measured() as cost:
        for _ in range(task.count):
            one()
    return cost


WAYS: Mapping[str, Callable[[Task], Cost]] = {
    "ours": ours,
    "unsealed": unsealed,
    "sdk": sdk,
    "sdk-safe": sdk_safe,
    "floor": floor,
}


def main() -> None:
    """Goes one way and prints what it cost."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("at_once", type=int)
    parser.add_argument("--trust", type=Path, help="the certificate to trust in place of the usual ones")
    parser.add_argument("--bucket", type=json.loads)
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if asked.trust:
        certifi.where = lambda: str(asked.trust)
    task = Task(url=asked.url, folder=asked.folder, count=asked.count, at_once=asked.at_once, bucket=asked.bucket)
    sys.stdout.write(json.dumps(asdict(WAYS[asked.way](task))))
    sys.stdout.flush()
    os._exit(0)  # the peers' threads and loops are of no more interest


if __name__ == "__main__":
    main()
