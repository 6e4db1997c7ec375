"""The main job on a bare machine: the service, a simulated FaceID, and one verification of each kind through both."""

import asyncio
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from pydantic import SecretStr
from rich.console import Console
from starlette.types import ASGIApp

from app.config import Settings
from app.domain.access import Scope
from app.domain.detection import MediaKind
from app.factory import open_services
from app.main import create_app
from app.simulator.options import DEMO_CREDENTIALS, SimulatorOptions
from app.simulator.server import create_simulator

_WAIT_SECONDS = 30
_ALL_MEDIA = [kind.value for kind in MediaKind]


@dataclass(frozen=True, slots=True)
class _Story:
    """One verification and how it must end."""

    scenario: str
    told: str
    state: str
    outcome: str | None
    media: Sequence[str]
    least_calls: int = 1


_STORIES = (
    _Story("passed", "The person passed", "retrieved", "passed", _ALL_MEDIA),
    _Story("failed-2016", "The faces were not alike enough", "retrieved", "failed", _ALL_MEDIA),
    _Story("unfinished-1", "The callback came too early; then passed", "retrieved", "passed", _ALL_MEDIA, 2),
    _Story("throttled-1", "Tencent said: too many requests; then passed", "retrieved", "passed", _ALL_MEDIA, 2),
    _Story("expired", "Tencent's 72 hours were over", "expired", None, []),
)


async def run_demo(console: Console, *, once: bool) -> int:
    """Walks through all stories and tells of them; stays up afterwards unless `once`. Answers the exit code."""
    with tempfile.TemporaryDirectory(prefix="faceid-results-demo-") as folder:
        async with _served(create_simulator(SimulatorOptions())) as faceid_url:
            settings = _settings(Path(folder), faceid_url)
            key = await _make_key(settings)
            async with (
                _served(create_app(settings)) as url,
                httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as api,
            ):
                console.print(_HELLO.format(url=url, faceid_url=faceid_url), highlight=False)
                views = await asyncio.gather(*(_play(api, story) for story in _STORIES))
                for number, (story, view) in enumerate(zip(_STORIES, views, strict=True), start=1):
                    console.print(f"  {number}.  {_told(story, view)}", highlight=False)
                missing = [
                    sentence for story, view in zip(_STORIES, views, strict=True) for sentence in _lacks(story, view)
                ]
                console.print(*(f"MISSING: {sentence}" for sentence in missing), sep="\n", style="bold red", end="")
                console.print(_stored(Path(folder)), highlight=False)
                console.print(
                    _LOOK.format(url=url, key=key, biz_token=views[0]["biz_token"]), soft_wrap=True, highlight=False
                )
                if not once:
                    console.print("The service keeps running. Ctrl-C ends it and removes all of this.", style="bold")
                    await asyncio.Event().wait()
    return 1 if missing else 0


async def _play(api: httpx.AsyncClient, story: _Story) -> dict[str, Any]:
    """A person is done; the business system says so, waits, and reads the result."""
    biz_token = f"{story.scenario}-{secrets.token_hex(4)}"
    await api.put(f"/v1/verifications/{biz_token}", json={"subject_ref": f"demo-{story.scenario}"})
    (await api.post("/v1/callbacks", json={"BizToken": biz_token})).raise_for_status()
    answer = await api.get(f"/v1/verifications/{biz_token}", params={"wait": _WAIT_SECONDS}, timeout=2 * _WAIT_SECONDS)
    view: dict[str, Any] = answer.raise_for_status().json()
    for medium in view["media"]:
        body = (await api.get(medium["href"])).raise_for_status().content
        medium["received"] = len(body)
    return view


def _lacks(story: _Story, view: dict[str, Any]) -> Iterator[str]:
    """Sentences about what is not as it must be."""
    for name, wanted in (("state", story.state), ("outcome", story.outcome)):
        if view[name] != wanted:
            yield f"{story.told}: {name} is {view[name]}, not {wanted}."
    whole = [medium["kind"] for medium in view["media"] if medium["received"] == medium["size_bytes"]]
    if whole != list(story.media):
        yield f"{story.told}: the media are {whole}, not {list(story.media)}."
    if story.state == "retrieved" and None in view["identity"].values():
        yield f"{story.told}: the identity is not complete."
    if view["retrieval"]["attempts"] < story.least_calls:
        yield f"{story.told}: {view['retrieval']['attempts']} calls, fewer than {story.least_calls}."


def _told(story: _Story, view: dict[str, Any]) -> str:
    """A verification in a few lines."""
    outcome = (view["outcome"] or "none") + (", provisional: the person may try again" if view["provisional"] else "")
    lines = [f"[bold]{story.told}[/bold]", f"state {view['state']}, outcome {outcome}"]
    if view["outcome"]:
        name, id_card, address = view["identity"].values()
        lines.append(f"similarity {view['verdict']['similarity']} %, {name}, {id_card}, {address}")
    kib = sum(medium["size_bytes"] for medium in view["media"]) // 1024
    lines.append(f"{len(view['media'])} media files, {kib} KiB; calls to Tencent: {view['retrieval']['attempts']}")
    return "\n      ".join(lines)


def _stored(folder: Path) -> str:
    files = [path for path in folder.rglob("*") if path.is_file()]
    media = [path for path in files if not path.name.startswith("faceid-results.db")]
    mib = sum(path.stat().st_size for path in media) / 2**20
    return (
        f"Stored in {folder}: texts and calls in faceid-results.db, {len(media)} media files ({mib:.1f} MiB) beside it."
    )


def _settings(folder: Path, faceid_url: str) -> Settings:
    return Settings(
        tencentcloud_secret_id=DEMO_CREDENTIALS.secret_id,
        tencentcloud_secret_key=SecretStr(DEMO_CREDENTIALS.secret_key),
        tencentcloud_token=None,
        faceid_endpoint=faceid_url,
        faceid_rule_id="1",
        faceid_info_type="0",
        data_dir=folder,
        database_url=None,
        media_url=None,
    )


async def _make_key(settings: Settings) -> str:
    async with open_services(settings) as services:
        everything = [scope for scope in Scope if scope is not Scope.ADMIN]
        _, text = await services.access.create("demo", everything, client="default", valid_for=timedelta(days=1))
    return text


class _Server(uvicorn.Server):
    """A server among others in one process: whoever runs them all minds the signals."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves them alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Says when it is over."""
        try:
            await super().startup(sockets)
        finally:
            self.is_up.set()


@asynccontextmanager
async def _served(app: ASGIApp) -> AsyncIterator[str]:
    """The address of the application, served on a free port of this machine for as long as the block runs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = _Server(uvicorn.Config(app, log_config=None, access_log=False))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await server.is_up.wait()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


_HELLO = """
[bold]faceid-results[/bold] keeps the results of Tencent Cloud FaceID (人脸核身). People verify
themselves at Tencent; your back end tells this service their BizToken; it
fetches what Tencent found out, within the quota and before Tencent forgets it
after 72 hours, stores texts and media, and serves them to your systems.

    your back end -- POST /v1/callbacks ----> this service -- GetDetectInfo --> Tencent
    your systems  -- GET /v1/verifications -> this service --> database, media store

On this machine now, reachable by nobody else:
    the service  {url}
    a FaceID     {faceid_url}  (simulated: synthetic people, real protocol)

Five people are done. For each of them: register the BizToken, call back, wait
for the result, download the media ...
"""

_LOOK = """
Look at it yourself (the API, to read and try: {url}/docs):

URL={url}
KEY={key}
curl -s -H "Authorization: Bearer $KEY" $URL/v1/verifications/{biz_token}
curl -s -H "Authorization: Bearer $KEY" "$URL/v1/verifications?outcome=failed"
curl -s -H "Authorization: Bearer $KEY" -H "X-Purpose: trying it" $URL/v1/verifications/{biz_token}/identity
curl -s -H "Authorization: Bearer $KEY" -o video.mp4 $URL/v1/verifications/{biz_token}/media/liveness_video
curl -s -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\
     -d '{{"BizToken": "passed-me"}}' $URL/v1/callbacks
curl -s -H "Authorization: Bearer $KEY" "$URL/v1/verifications/passed-me?wait=20"
"""
