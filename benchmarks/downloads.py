"""The cost of downloads: an encrypted video of 12 MB, compared with nginx, which sends a plain file by `sendfile`.

Without nginx on this machine its lines are missing. The floor is an event loop that sends the same bytes from memory.
"""

import asyncio
import shutil
import statistics
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from app.domain.media import MediaKind
from benchmarks import harness, upstream
from benchmarks.figures import Line
from benchmarks.harness import Server, answers_to
from benchmarks.load import Load
from benchmarks.requests import retrieve
from benchmarks.retrieval import VIDEO_BYTES, bucket_of
from simulator.media import media_of
from tests.support.processes import Child, Command, answers, minded
from tests.support.servers import s3
from tests.support.service import UNLIMITED, set_up, settings_for

_AT_ONCE = 16
_PLAIN = "plain.mp4"
_PARTS = {"64 KiB of it": 64 * 1024, "1 MiB of it": 1024 * 1024}
_NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 64; }}
http {{
  access_log off; sendfile on; default_type video/mp4; keepalive_requests 1000000;
  client_body_temp_path {folder}/n1; proxy_temp_path {folder}/n2; fastcgi_temp_path {folder}/n3;
  uwsgi_temp_path {folder}/n4; scgi_temp_path {folder}/n5;
  server {{ listen 127.0.0.1:{port}; root {folder}; }}
}}
"""

_Place = tuple[Server, Load]


async def lines(folder: Path, *, rounds: int, seconds: float, video_bytes: int = VIDEO_BYTES) -> AsyncIterator[Line]:
    """Measures whole files and ranges, from the disk and from a bucket. The peers send the same bytes unencrypted."""
    plain = folder / _PLAIN
    plain.write_bytes(media_of("passed-0", video_bytes=video_bytes)[MediaKind.LIVENESS_VIDEO])
    async with AsyncExitStack() as stack:
        places = await _places(stack, folder, video_bytes, seconds)
        whole = await _rounds(places, rounds)
        for name in ("disk", "S3"):
            yield Line.plain(f"media out, {_AT_ONCE} at once, {name}", "ms CPU", whole[name])
        for peer, most in (("nginx", 4.0), ("floor", None)):
            if peer in whole:
                yield Line.at_most(
                    f"media out, {_AT_ONCE} at once", "ms CPU", whole["disk"], whole[peer], peer, most=most
                )
        del places["floor"]
        for part, size in _PARTS.items():
            cost = await _rounds(_ranged(places, video_bytes // 2, size), rounds)
            for peer in cost.keys() - {"disk"}:
                yield Line.at_most(f"media out, {part}", "ms CPU", cost["disk"], cost[peer], peer)


async def _places(stack: AsyncExitStack, folder: Path, video_bytes: int, seconds: float) -> dict[str, _Place]:
    faceid = await stack.enter_async_context(upstream.running(folder, video_bytes))
    bucket: dict[str, Any] = dict(bucket_of(stack.enter_context(s3())))
    bucket["aws_secret_access_key"] = SecretStr(bucket["aws_secret_access_key"])
    plain = Load(path=f"/{_PLAIN}", clients=_AT_ONCE, seconds=seconds)
    floor = harness.python("benchmarks.upstream", "0", "--media", str(folder / _PLAIN))
    places = {
        "disk": await _ours(stack, folder / "disk", faceid, plain, {"media_url": (folder / "media").as_uri()}),
        "S3": await _ours(stack, folder / "bucket", faceid, plain, bucket),
        "floor": (await stack.enter_async_context(floor), replace(plain, path=upstream.MEDIA_PATH)),
    }
    if nginx := shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"):
        places["nginx"] = (await stack.enter_async_context(_nginx(nginx, folder)), plain)
    return places


async def _ours(stack: AsyncExitStack, home: Path, faceid: str, plain: Load, store: Mapping[str, Any]) -> _Place:
    await asyncio.to_thread(home.mkdir)
    settings = settings_for(home, faceid, **store, **UNLIMITED)
    headers = {"Authorization": f"Bearer {await set_up(settings)}", "X-Purpose": "benchmark"}
    await retrieve(settings, 1)
    server = await stack.enter_async_context(harness.serving(settings, "--no-worker"))
    return server, replace(plain, path="/v1/verifications/passed-0/media/liveness_video", headers=headers)


@asynccontextmanager
async def _nginx(program: str, folder: Path) -> AsyncIterator[Server]:
    port = harness.free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port))
    command = Command([program, "-c", str(config)], {}, folder, up=partial(answers, "127.0.0.1", port))
    child = Child("nginx", command)
    async with minded([child]):
        yield Server(port, child)


def _ranged(places: Mapping[str, _Place], start: int, size: int) -> dict[str, _Place]:
    wanted = {"Range": f"bytes={start}-{start + size - 1}"}
    return {
        name: (server, replace(load, headers={**load.headers, **wanted}, status=206))
        for name, (server, load) in places.items()
    }


async def _rounds(places: Mapping[str, _Place], rounds: int) -> Mapping[str, float]:
    """Returns the median milliseconds of CPU of one download from each place. The places take turns."""
    costs: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, (server, load) in places.items():
            before = server.cpu
            took = (await answers_to(load, server.port)).took
            costs[name].append((server.cpu - before) * 1000 / len(took))
    return {name: statistics.median(cost) for name, cost in costs.items()}
