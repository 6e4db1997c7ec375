"""The main job on a bare machine: the service, a simulated FaceID, and one verification of each kind through both."""

import asyncio
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
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
from simulator.options import DEMO_CREDENTIALS, SimulatorOptions
from simulator.server import create_simulator

_ALL_MEDIA = [MediaKind.ID_CARD_FRONT, MediaKind.ID_CARD_BACK, MediaKind.BEST_FRAME, MediaKind.LIVENESS_VIDEO]


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


@dataclass(frozen=True, slots=True)
class _Played:
    """How a story went: its verification as the API answered it, and what is not as it must be."""

    story: _Story
    view: dict[str, Any]
    missing: Sequence[str]


async def run_demo(
    console: Console, *, once: bool, options: SimulatorOptions | None = None, wait_seconds: float = 30
) -> int:
    """Walks through all stories and tells of them; stays up afterwards unless `once`.

    Args:
        console: where to tell.
        once: end after the walk.
        options: how the simulated FaceID behaves.
        wait_seconds: how long a result may take.

    Returns:
        The exit code: 1 if anything is missing.
    """
    with tempfile.TemporaryDirectory(prefix="faceid-results-demo-") as folder:
        async with _served(create_simulator(options)) as faceid_url:
            settings = _settings(Path(folder), faceid_url)
            key = await _make_key(settings)
            async with _served(create_app(settings)) as url:
                console.print(_HELLO.format(url=url, faceid_url=faceid_url), **_PLAIN)
                played = await _play_all(url, key, wait_seconds)
                _tell(console, played, Path(folder))
                biz_token = played[0].view.get("biz_token")
                console.print(_LOOK.format(url=url, key=key, biz_token=biz_token), **_PLAIN)
                if not once:
                    console.print("The service keeps running. Ctrl-C ends it and removes all of this.", style="bold")
                    await asyncio.Event().wait()
    return 1 if any(one.missing for one in played) else 0


async def _play_all(url: str, key: str, wait_seconds: float) -> Sequence[_Played]:
    headers, timeout = {"Authorization": f"Bearer {key}", "X-Purpose": "demo"}, wait_seconds + 30
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout, trust_env=False) as api:
        return await asyncio.gather(*(_play(api, story, wait_seconds) for story in _STORIES))


async def _play(api: httpx.AsyncClient, story: _Story, wait_seconds: float) -> _Played:
    """A person is done; the business system says so, waits, and reads the result."""
    path = f"/v1/verifications/{story.scenario}-{secrets.token_hex(4)}"
    try:
        (await api.put(path, json={"subject_ref": f"demo-{story.scenario}"})).raise_for_status()
        called_back = await api.post("/v1/callbacks", json={"BizToken": path.rpartition("/")[2]})
        called_back.raise_for_status()
        view: dict[str, Any] = (await api.get(path, params={"wait": wait_seconds})).raise_for_status().json()
        for medium in view["media"]:
            medium["received"] = len((await api.get(medium["href"])).raise_for_status().content)
    except httpx.HTTPError as error:
        return _Played(story, {}, [f"{story.told}: the service did not answer ({type(error).__name__})."])
    return _Played(story, view, list(_lacks(story, view)))


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


def _tell(console: Console, played: Sequence[_Played], folder: Path) -> None:
    for number, one in enumerate(played, start=1):
        console.print(f"  {number}.  {_told(one.story, one.view)}", **_PLAIN)
    for sentence in (sentence for one in played for sentence in one.missing):
        console.print(f"MISSING: {sentence}", style="bold red", **_PLAIN)
    media = [path for path in (folder / "media").rglob("*") if path.is_file()]
    mib = sum(path.stat().st_size for path in media) / 2**20
    console.print(_STORED.format(folder=folder, number=len(media), mib=mib), **_PLAIN)


def _told(story: _Story, view: dict[str, Any]) -> str:
    """A verification in a few lines."""
    lines = [f"[bold]{story.told}[/bold]"]
    if view:
        outcome = (view["outcome"] or "none") + (", provisional: may try again" if view["provisional"] else "")
        lines.append(f"state {view['state']}, outcome {outcome}; calls: {view['retrieval']['attempts']}")
    if view.get("outcome"):
        name, id_card, address = view["identity"].values()
        lines.append(f"similarity {view['verdict']['similarity']} %, {name}, {id_card}, {address}")
        kib = sum(medium["size_bytes"] for medium in view["media"]) // 1024
        lines.append(f"{kib} KiB: {', '.join(medium['kind'] for medium in view['media'])}")
    return "\n      ".join(lines)


def _settings(folder: Path, faceid_url: str) -> Settings:
    """What is not named here has its default: nothing is read from the environment, nor from any file."""
    return Settings.model_construct(
        tencentcloud_secret_id=DEMO_CREDENTIALS.secret_id,
        tencentcloud_secret_key=SecretStr(DEMO_CREDENTIALS.secret_key),
        faceid_endpoint=faceid_url,
        faceid_rule_id="1",
        data_dir=folder,
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
        server = _Server(uvicorn.Config(app, log_config=None, access_log=False, workers=1))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await server.is_up.wait()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


_PLAIN: Mapping[str, Any] = {"highlight": False, "soft_wrap": True}  # what is printed can be pasted into a shell

_HELLO = """
[bold]faceid-results[/bold] keeps the results of Tencent Cloud FaceID (人脸核身).

People verify themselves at Tencent. Your back end tells this service their
BizToken; it fetches what Tencent found out, within the quota and before
Tencent forgets it after 72 hours, stores texts and media, and serves them.

  your back end -- POST /v1/callbacks ----> this service --> Tencent
  your systems  -- GET /v1/verifications -> this service --> database, media

On this machine now, reachable from nowhere else:
  the service  {url}
  a FaceID     {faceid_url} (simulated; its people are invented)

Five people are done. For each of them: register the BizToken, call back, wait
for the result, download the media ...
"""

_STORED = """
Stored: texts and calls in faceid-results.db, {number} media files ({mib:.1f} MiB), all in
{folder}"""

_LOOK = """
Look at it yourself. The API, to read and to try: {url}/docs
To ask it from a shell, paste what follows.

URL={url}
KEY={key}
AUTH="Authorization: Bearer $KEY"

# One result, the identity masked; all that failed; the identity, on record:
curl -sw '\\n' -H "$AUTH" $URL/v1/verifications/{biz_token}
curl -sw '\\n' -H "$AUTH" "$URL/v1/verifications?outcome=failed"
curl -sw '\\n' -H "$AUTH" -H "X-Purpose: trying it" \\
     $URL/v1/verifications/{biz_token}/identity

# A video, into a file; a callback of your own, and its result:
curl -s -H "$AUTH" -H "X-Purpose: trying it" -o video.mp4 \\
     $URL/v1/verifications/{biz_token}/media/liveness_video
curl -sw '\\n' -H "$AUTH" -H "Content-Type: application/json" \\
     -d '{{"BizToken": "passed-me"}}' $URL/v1/callbacks
curl -sw '\\n' -H "$AUTH" "$URL/v1/verifications/passed-me?wait=20"

On your own account: set TENCENTCLOUD_SECRET_ID, TENCENTCLOUD_SECRET_KEY and
FACEID_RULE_ID, then `faceid-results doctor` and `faceid-results serve`.
"""
