"""The demo: one verification of each kind through a real service and a simulated FaceID.

`faceid-results demo` runs it on a temporary installation; `deploy/demo.py` runs the same walk on a deployed one.
"""

import asyncio
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr
from rich.console import Console

from app.cli.demo_history import create_history, expect
from app.cli.demo_plan import LOANS, RULES, WALLET
from app.cli.demo_receiver import DemoReceiver
from app.cli.runtime import operator
from app.cli.server import listen, serving, url_of
from app.config import Settings
from app.domain.api_key import Scope
from app.domain.rule import DEFAULT_CLIENT
from app.faceid.credentials import AccountSettings
from app.factory import open_services
from app.main import create_app
from app.services.clock import Clock, now
from app.services.rule_settings import RuleSettings
from simulator.options import DEMO_CREDENTIALS, SimulatorOptions
from simulator.server import create_simulator

_DAY = timedelta(days=1)
_ALL_MEDIA = ("id_card_front", "id_card_back", "best_frame", "liveness_video")


@dataclass(frozen=True, slots=True)
class _Story:
    """A scenario of the simulator, and how its verification must end."""

    scenario: str
    title: str
    state: str = "retrieved"
    outcome: str | None = "passed"
    media: Sequence[str] = _ALL_MEDIA
    min_calls: int = 1


_STORIES = (
    _Story("passed", "The person passed"),
    _Story("failed-2016", "The person failed: the faces are not similar enough", outcome="failed"),
    _Story("unfinished-1", "The callback came too early, then the person passed", min_calls=2),
    _Story("throttled-1", "Rate limit exceeded at first, then the person passed", min_calls=2),
    _Story("expired", "Tencent no longer has the result", state="expired", outcome=None, media=()),
)


async def run_demo(
    console: Console,
    *,
    once: bool,
    options: SimulatorOptions | None = None,
    wait_seconds: float = 30,
    days: int = 0,
    seed: str = "1",
    at: datetime | None = None,
) -> int:
    """Runs the walk on a temporary installation and, unless `once`, keeps the service running.

    Args:
        console: where to print.
        once: return after the walk.
        options: behaviour of the simulated FaceID.
        wait_seconds: maximum wait for a result.
        days: how many days of history to create first.
        seed: decides which people the history has.
        at: the time with which the service's clock begins; by default the machine's.

    Returns:
        The exit code: 1 if a verification did not end as expected.
    """
    with (
        tempfile.TemporaryDirectory(prefix="faceid-results-demo-") as folder,
        listen("127.0.0.1", 0) as faceid_listener,
        listen("127.0.0.1", 0) as receiver_listener,
        listen("127.0.0.1", 0) as loans_listener,
        listen("127.0.0.1", 0) as listener,
    ):
        url, faceid_url = url_of(listener), url_of(faceid_listener)
        settings, clock = demo_settings(Path(folder), faceid_url), _clock(at)
        # The console would warn of keys that expire soon.
        valid_for = timedelta(days=30)
        key = await create_demo_key(settings, valid_for=valid_for, clock=clock)
        admin_key = await create_admin_key(settings, valid_for=valid_for, clock=clock)
        simulator, receiver = create_simulator(options), DemoReceiver(url_of(receiver_listener), clock=clock)
        loans_receiver = DemoReceiver(url_of(loans_listener), clock=clock)
        if not once:
            console.print(_CONSOLE.format(url=url, admin_key=admin_key), **_PLAIN)
        async with serving(simulator, faceid_listener), serving(loans_receiver, loans_listener):
            if days:
                console.print(
                    f"Creating the history of invented people, days: {days}. Then the console answers ...", **_PLAIN
                )
                end = clock()
                expect(simulator, await create_history(settings, loans_receiver, end=end, days=days, seed=seed))
                loans_receiver.clock = clock
            async with (
                serving(receiver, receiver_listener),
                serving(create_app(settings, clock=clock if at else None), listener) as api,
            ):
                console.print(_INTRODUCTION, **_PLAIN)
                headers = {"Authorization": f"Bearer {key}"}
                async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
                    await receiver.register(client)
                is_complete, biz_token = await walk(console, url, key, wait_seconds=wait_seconds)
                is_complete &= await _show_webhook(console, receiver, biz_token, wait_seconds)
                console.print(_STORED.format(**_media_files(Path(folder))), **_PLAIN)
                if not once:
                    guide = _GUIDE.format(
                        url=url, faceid_url=faceid_url, folder=folder, key=key, admin_key=admin_key, biz_token=biz_token
                    )
                    console.print(guide, **_PLAIN)
                console.print(_OWN_ACCOUNT, **_PLAIN)
                if not once:
                    console.print("The service keeps running. Ctrl-C ends it and removes all of this.", style="bold")
                    await asyncio.wait([api])
    return 0 if is_complete else 1


def demo_settings(folder: Path, faceid_url: str) -> Settings:
    """Returns the settings of a demo in a folder. Nothing comes from the environment or from files."""
    credentials = {
        "secret_id": DEMO_CREDENTIALS.secret_id,
        "secret_key": SecretStr(DEMO_CREDENTIALS.secret_key),
    }
    return Settings.default(
        **{f"tencentcloud_{name}": value for name, value in credentials.items()},
        faceid_endpoint=faceid_url,
        faceid_rule_id=RULES[LOANS],
        accounts={WALLET: AccountSettings(**credentials, endpoint=faceid_url)},
        rules={RULES[WALLET]: RuleSettings(account=WALLET, info_type="1")},
        data_dir=folder,
        webhook_allowed_networks="127.0.0.0/8",
    )


def _clock(at: datetime | None) -> Clock:
    """Returns the machine's clock, or one that begins at an instant."""
    ahead = at - now() if at else timedelta()
    return lambda: now() + ahead


async def _show_webhook(console: Console, receiver: DemoReceiver, biz_token: str, wait_seconds: float) -> bool:
    """Prints the event about the person who passed, as it arrived; returns whether it did."""
    event = await receiver.find("verification.retrieved", biz_token, wait_seconds)
    if event is None:
        console.print("MISSING: The webhook about the person who passed did not arrive.", style="bold red", **_PLAIN)
        return False
    data = event["data"]
    console.print(_WEBHOOK.format(id=event["id"], state=data["state"], outcome=data["outcome"]), **_PLAIN)
    return True


async def create_demo_key(settings: Settings, *, valid_for: timedelta = _DAY, clock: Clock | None = None) -> str:
    """Creates an API key with all scopes except administration."""
    scopes = [scope for scope in Scope if scope is not Scope.ADMIN]
    return await _create_key(settings, "demo", scopes, valid_for, clock)


async def create_admin_key(settings: Settings, *, valid_for: timedelta, clock: Clock | None = None) -> str:
    """Creates an API key for the console, with all scopes."""
    return await _create_key(settings, "demo admin", [Scope.ADMIN], valid_for, clock)


async def _create_key(
    settings: Settings, name: str, scopes: Sequence[Scope], valid_for: timedelta, clock: Clock | None
) -> str:
    async with open_services(settings, clock=clock) as services:
        _, key = await services.api_keys.create(operator(), name, scopes, client=DEFAULT_CLIENT, valid_for=valid_for)
    return key


async def walk(console: Console, url: str, key: str, *, wait_seconds: float) -> tuple[bool, str]:
    """Plays all stories through the API at `url` and prints how they ended.

    Returns:
        Whether all ended as expected, and the BizToken of the person who passed.
    """
    tokens = [f"{story.scenario}-{secrets.token_hex(4)}" for story in _STORIES]
    headers, timeout = {"Authorization": f"Bearer {key}", "X-Purpose": "demo"}, wait_seconds + 30
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout, trust_env=False) as api:
        plays = (_play(api, story, token, wait_seconds) for story, token in zip(_STORIES, tokens, strict=True))
        ends = await asyncio.gather(*plays)
    missing: list[str] = []
    for number, (story, end) in enumerate(zip(_STORIES, ends, strict=True), start=1):
        if isinstance(end, str):
            missing.append(f"{story.title}: {end}")
        else:
            console.print(f"  {number}.  {_summary(story, end)}", **_PLAIN)
            missing += _differences(story, end)
    for sentence in missing:
        console.print(f"MISSING: {sentence}", style="bold red", **_PLAIN)
    return not missing, tokens[0]


async def _play(api: httpx.AsyncClient, story: _Story, biz_token: str, wait_seconds: float) -> dict[str, Any] | str:
    """Does what a business system does: registers the token, calls back, waits for the result, downloads the media.

    Returns:
        The verification as the API returned it, with the received size of each media item; or why there is none.
    """
    path = f"/v1/verifications/{biz_token}"
    try:
        registration = {"subject_ref": f"demo-{story.scenario}"}
        (await api.put(path, json=registration)).raise_for_status()
        (await api.post("/v1/callbacks", json={"BizToken": biz_token})).raise_for_status()
        answer = await api.get(path, params={"wait": wait_seconds})
        view: dict[str, Any] = answer.raise_for_status().json()
        for item in view["media"]:
            item["received"] = len((await api.get(item["href"])).raise_for_status().content)
    except httpx.HTTPStatusError as error:
        return f"the service answered {error.response.status_code}."
    except httpx.HTTPError as error:
        return f"the service did not answer ({type(error).__name__})."
    return view


def _summary(story: _Story, view: dict[str, Any]) -> str:
    outcome = (view["outcome"] or "none") + (", provisional: may try again" if view["provisional"] else "")
    lines = [
        f"[bold]{story.title}[/bold]",
        f"state {view['state']}, outcome {outcome}; calls: {view['retrieval']['attempts']}",
    ]
    if view["outcome"]:
        name, id_card, address = view["identity"].values()
        lines.append(f"similarity {view['verdict']['similarity']} %, {name}, {id_card}, {address}")
        kib = sum(item["size_bytes"] for item in view["media"]) // 1024
        lines.append(f"{kib} KiB: {', '.join(item['kind'] for item in view['media'])}")
    return "\n      ".join(lines)


def _differences(story: _Story, view: dict[str, Any]) -> Iterator[str]:
    """Yields a sentence for each way in which a verification did not end as expected."""
    for name, expected in (("state", story.state), ("outcome", story.outcome)):
        if view[name] != expected:
            yield f"{story.title}: {name} is {view[name]}, not {expected}."
    complete = [item["kind"] for item in view["media"] if item["received"] == item["size_bytes"]]
    if complete != list(story.media):
        yield f"{story.title}: the media are {complete}, not {list(story.media)}."
    if story.state == "retrieved" and None in view["identity"].values():
        yield f"{story.title}: the identity is not complete."
    if view["retrieval"]["attempts"] < story.min_calls:
        yield f"{story.title}: {view['retrieval']['attempts']} calls, fewer than {story.min_calls}."


def _media_files(folder: Path) -> dict[str, float]:
    sizes = [path.stat().st_size for path in (folder / "media").glob("??/*")]
    return {"number": len(sizes), "mib": sum(sizes) / 2**20}


# Printed lines must survive being pasted into a shell.
_PLAIN: Mapping[str, Any] = {"highlight": False, "soft_wrap": True}

_CONSOLE = """
[bold]The console: {url}/admin[/bold]
Sign in with {admin_key}
"""

_INTRODUCTION = """
[bold]faceid-results[/bold] retrieves and stores the results of Tencent Cloud FaceID
(人脸核身).

People verify themselves at Tencent. Your back end sends their BizToken to this
service. The service fetches the result within Tencent's rate limit and before
Tencent deletes it after 72 hours, stores texts and media, and serves them.

  your back end -- POST /v1/callbacks ----> this service --> Tencent
  your systems  -- GET /v1/verifications -> this service --> database, media

Five people have finished. For each of them, the demo registers the BizToken,
calls back, waits for the result and downloads the media. A receiver on this
machine gets the events as webhooks ...
"""

_WEBHOOK = """
  Webhook received and its signature verified: verification.retrieved,
      state {state}, outcome {outcome}, {id}"""

_STORED = """
Stored: texts and calls in faceid-results.db, {number} media files ({mib:.1f} MiB)."""

_GUIDE = """
Running now, reachable from this machine only:
  the console         {url}/admin
                      sign in with {admin_key}
  the service         {url}, described on {url}/docs
  a simulated FaceID  {faceid_url} (its people are invented)
  the stored files    {folder}

To call it from a shell, paste the lines below. They read one result with the
identity masked, all failed ones, and the full identity, which is audited. Then
they download a video, send a callback of your own and wait for its result.

URL={url}
KEY={key}
AUTH="Authorization: Bearer $KEY"
curl -sw '\\n' -H "$AUTH" $URL/v1/verifications/{biz_token}
curl -sw '\\n' -H "$AUTH" "$URL/v1/verifications?outcome=failed"
curl -sw '\\n' -H "$AUTH" -H "X-Purpose: trying it" \\
     $URL/v1/verifications/{biz_token}/identity
curl -s -H "$AUTH" -H "X-Purpose: trying it" -o video.mp4 \\
     $URL/v1/verifications/{biz_token}/media/liveness_video
curl -sw '\\n' -H "$AUTH" -H "Content-Type: application/json" \\
     -d '{{"BizToken": "passed-me", "RuleId": "1"}}' $URL/v1/callbacks
curl -sw '\\n' -H "$AUTH" "$URL/v1/verifications/passed-me?wait=20"
"""

_OWN_ACCOUNT = """On your own account: set TENCENTCLOUD_SECRET_ID, TENCENTCLOUD_SECRET_KEY and
FACEID_RULE_ID, then `faceid-results doctor` and `faceid-results serve`.
"""
