"""Where it happens: the real processes, what is told to them, and what breaks around them."""

import asyncio
import os
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx

from app.config import Settings
from app.errors import UnavailableError
from app.factory import open_services
from tests.chaos.plan import Event, Fault, FaultKind, Kill, Plan, Tell, Told
from tests.chaos.reconcile import Acknowledged
from tests.chaos.upstream import Upstream
from tests.support.postgres import Postgres
from tests.support.processes import Child

_AGAIN_SECONDS = 0.3
_MOST_AT_ONCE = 32
_FINISH_SECONDS = 60.0  # for what is still to be acknowledged when nothing breaks any more


class MediaFolder:
    """The way to the media store: a link, which can point at a place that takes nothing. Both ways in one step."""

    def __init__(self, link: Path, folder: Path) -> None:
        self._link = link
        self._folder = folder
        self._away_until = 0.0
        folder.mkdir()
        self._point(folder)

    def away_for(self, seconds: float) -> None:
        """Nothing can be read or written for that long."""
        self._away_until = max(self._away_until, time.monotonic() + seconds)
        self._point(Path(os.devnull))
        asyncio.get_running_loop().call_later(seconds, self._back_when_due)

    def back(self) -> None:
        """As it was."""
        self._away_until = 0.0
        self._point(self._folder)

    def _back_when_due(self) -> None:
        if time.monotonic() >= self._away_until:
            self.back()

    def _point(self, target: Path) -> None:
        fresh = self._link.with_name(secrets.token_hex(8))
        fresh.symlink_to(target)
        fresh.rename(self._link)


@dataclass(kw_only=True)
class Scene:
    """All that runs, and what happened to it so far.

    `statuses` counts what callers got; from `mended_at` on, by `time.monotonic`, nothing is broken any more.
    """

    settings: Settings
    upstream: Upstream
    media: MediaFolder
    children: Mapping[str, Child]
    postgres: Postgres | None
    client: httpx.AsyncClient
    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    told: set[str] = field(default_factory=set)
    acknowledged: dict[str, Acknowledged] = field(default_factory=dict)
    mended_at: float = float("inf")
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MOST_AT_ONCE))

    async def play(self, plan: Plan, until: float) -> None:
        """Lets the events happen, then mends everything and goes on telling what was not acknowledged yet."""
        async with asyncio.TaskGroup() as group:
            for after_seconds, event in plan.events:
                if time.monotonic() > until:
                    break
                await asyncio.sleep(after_seconds)
                await self._happen(event, group)
            self._mend()

    def _mend(self) -> None:
        self.upstream.mend()
        self.media.back()
        self.mended_at = time.monotonic()

    async def _happen(self, event: Event, group: asyncio.TaskGroup) -> None:
        match event:
            case Tell():
                group.create_task(self._tell(event))
            case Fault(FaultKind.COMMAND):
                self.faults[event.kind] += 1
                group.create_task(self._command())
            case Fault():
                self._break(event)
            case Kill():
                await self._kill(event)

    def _break(self, fault: Fault) -> None:
        self.faults[fault.kind] += 1
        if fault.kind is FaultKind.MEDIA:
            self.media.away_for(fault.seconds)
        elif fault.kind is FaultKind.SESSIONS:
            if self.postgres:
                self.postgres.cut_sessions()
        else:
            self.upstream.break_for(fault.kind, fault.seconds)

    async def _command(self) -> None:
        """What `keys list` does: the first to open the embedded database, or the last to close it, tidies it up."""
        with suppress(UnavailableError):
            async with open_services(self.settings) as services:
                await services.access.list()

    async def _kill(self, kill: Kill) -> None:
        name, _, part = kill.target.partition(" ")
        child = self.children[name]
        if kill.hold_seconds is not None:
            await child.until_up()
            await asyncio.sleep(kill.hold_seconds)
        moment = "up" if child.is_up.is_set() else "starting"
        is_done = self.postgres.kill_backend() if part and self.postgres else child.kill()
        self.kills[f"{kill.target}, {moment}"] += is_done

    async def _tell(self, tell: Tell) -> None:
        async with self._gate:
            while True:
                if await self._try(tell) or time.monotonic() > self.mended_at + _FINISH_SECONDS:
                    return
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _try(self, tell: Tell) -> bool:
        """Tells it once; whether that settled it."""
        self.sent += 1
        self.told.add(tell.token.biz_token)
        try:
            answer = await self.client.send(self._request(tell))
        except httpx.TransportError as error:
            self.statuses[type(error).__name__] += 1
            return False
        self.statuses[str(answer.status_code)] += 1
        if answer.is_success:
            self._acknowledge(tell, answer.json()["received_at"])
        return not answer.is_server_error

    def _acknowledge(self, tell: Tell, received_at: str | None) -> None:
        nothing = Acknowledged(frozenset(), is_registered=False)
        before = self.acknowledged.get(tell.token.biz_token, nothing)
        received = {datetime.fromisoformat(received_at)} if received_at else set()
        self.acknowledged[tell.token.biz_token] = Acknowledged(
            before.received | received, before.is_registered or tell.told is Told.REGISTRATION
        )

    def _request(self, tell: Tell) -> httpx.Request:
        token = tell.token
        if tell.told is Told.CALLBACK:
            body = {"BizToken": token.biz_token, "Extra": token.extra}
            return self.client.build_request("POST", "/v1/callbacks", json=body)
        facts = {"subject_ref": token.subject_ref}
        if token.age:
            facts["created_at"] = (_NOW - token.age).isoformat()
        return self.client.build_request("PUT", f"/v1/verifications/{token.biz_token}", json=facts)


_NOW = datetime.now(UTC)  # one instant for all: who registers a token twice says the same twice
