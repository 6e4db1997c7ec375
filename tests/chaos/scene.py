"""Plays a plan: sends its notices to the real processes, and kills and breaks what they need."""

import asyncio
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx

from app.cli.runtime import operator
from app.config import Settings
from app.errors import UnavailableError
from app.factory import open_services
from app.storage.postgres import DRIVER_ERRORS
from tests.chaos.plan import Event, Fault, FaultKind, Kill, Notice, NoticeKind, Plan
from tests.chaos.reconcile import Acknowledged
from tests.chaos.upstream import Upstream
from tests.support.postgres import Postgres
from tests.support.processes import Child
from tests.support.relay import Relay
from tests.support.service import environment_of

_RETRY_SECONDS = 0.3
_PROMOTE_TRIES = 200
_ROOT = Path(__file__).parents[2]
_MAX_CONCURRENT = 32
# For the notices that are not acknowledged when the last fault ends.
_FINISH_SECONDS = 60.0


class BreakableMedia:
    """A media store that can be made unavailable. `put_away` and `bring_back` do it."""

    def __init__(self, put_away: Callable[[], None], bring_back: Callable[[], None]) -> None:
        self._put_away = put_away
        self._bring_back = bring_back
        self._broken_until = 0.0

    def break_for(self, seconds: float) -> None:
        """Makes the store unavailable for so many seconds."""
        self._broken_until = max(self._broken_until, time.monotonic() + seconds)
        self._put_away()
        asyncio.get_running_loop().call_later(seconds, self._mend_when_due)

    def mend(self) -> None:
        """Makes the store available."""
        self._broken_until = 0.0
        self._bring_back()

    def _mend_when_due(self) -> None:
        if time.monotonic() >= self._broken_until:
            self.mend()


def breakable_folder(link: Path, folder: Path) -> BreakableMedia:
    """Returns the store at `link`, which points at a place without files while the store is broken."""

    def point(target: Path) -> None:
        fresh = link.with_name(secrets.token_hex(8))
        fresh.symlink_to(target)
        fresh.rename(link)

    folder.mkdir()
    point(folder)
    return BreakableMedia(lambda: point(Path(os.devnull)), lambda: point(folder))


def breakable_bucket(relay: Relay) -> BreakableMedia:
    """Returns the store behind a relay, which ends all connections while the store is broken."""
    return BreakableMedia(relay.refuse, relay.accept)


@dataclass(kw_only=True)
class Scene:
    """The running processes, and what has happened so far.

    `statuses` counts the answers to notices. After `mended_at`, by `time.monotonic`, there are no faults.
    """

    settings: Settings
    upstream: Upstream
    media: BreakableMedia
    children: Mapping[str, Child]
    postgres: Postgres | None
    client: httpx.AsyncClient
    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    sent_tokens: set[str] = field(default_factory=set)
    acknowledged: dict[str, Acknowledged] = field(default_factory=dict)
    mended_at: float = float("inf")
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MAX_CONCURRENT))

    async def play(self, plan: Plan, until: float) -> None:
        """Plays the events, then ends all faults and continues with the notices that are not acknowledged."""
        async with asyncio.TaskGroup() as group:
            for after_seconds, event in plan.events:
                if time.monotonic() > until:
                    break
                await asyncio.sleep(after_seconds)
                await self._play_event(event, group)
            self._mend()

    def _mend(self) -> None:
        self.upstream.mend()
        self.media.mend()
        self.mended_at = time.monotonic()

    async def _play_event(self, event: Event, group: asyncio.TaskGroup) -> None:
        match event:
            case Notice():
                group.create_task(self._send(event))
            case Fault(FaultKind.COMMAND):
                self.faults[event.kind] += 1
                group.create_task(self._command())
            case Fault():
                self._break(event, group)
            case Kill():
                await self._kill(event)

    def _break(self, fault: Fault, group: asyncio.TaskGroup) -> None:
        self.faults[fault.kind] += 1
        if fault.kind is FaultKind.MEDIA:
            self.media.break_for(fault.seconds)
        elif fault.kind is FaultKind.CLOCK:
            group.create_task(self._run_with_wrong_clock(fault))
        elif self.postgres and fault.kind is FaultKind.SESSIONS:
            self.postgres.cut_sessions()
        elif self.postgres and fault.kind is FaultKind.READ_ONLY:
            group.create_task(self._demote(self.postgres, fault.seconds))
        else:
            self.upstream.break_for(fault.kind, fault.seconds)

    async def _demote(self, postgres: Postgres, seconds: float) -> None:
        """Makes the server read-only for so many seconds, and longer if it is down then."""
        with suppress(*DRIVER_ERRORS):
            await postgres.accept_writes(is_writable=False)
            await asyncio.sleep(seconds)
        for _ in range(_PROMOTE_TRIES):
            with suppress(*DRIVER_ERRORS):
                await postgres.accept_writes(is_writable=True)
                return
            await asyncio.sleep(_RETRY_SECONDS)

    async def _run_with_wrong_clock(self, fault: Fault) -> None:
        """Runs one more worker, which is killed at the end."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.wrong_clock", str(fault.hours)),
            stderr=asyncio.subprocess.DEVNULL,
            cwd=self.settings.database.data_dir,
            env={**environment_of(self.settings), "PYTHONPATH": str(_ROOT)},
        )
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            # It has ended if the database was down when it started.
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _command(self) -> None:
        """Runs `keys list` in process, which may be the first to open an embedded database or the last to close it."""
        with suppress(UnavailableError):
            async with open_services(self.settings) as services:
                await services.api_keys.list(operator())

    async def _kill(self, kill: Kill) -> None:
        name, _, part = kill.target.partition(" ")
        child = self.children[name]
        if kill.hold_seconds is not None:
            await child.until_up()
            await asyncio.sleep(kill.hold_seconds)
        moment = "up" if child.is_up.is_set() else "starting"
        is_done = self.postgres.kill_backend() if part and self.postgres else child.kill()
        self.kills[f"{kill.target}, {moment}"] += is_done

    async def _send(self, notice: Notice) -> None:
        async with self._gate:
            while True:
                if await self._try(notice) or time.monotonic() > self.mended_at + _FINISH_SECONDS:
                    return
                await asyncio.sleep(_RETRY_SECONDS)

    async def _try(self, notice: Notice) -> bool:
        """Sends the notice once; returns whether it needs no repetition."""
        self.sent += 1
        self.sent_tokens.add(notice.token.biz_token)
        try:
            answer = await self.client.send(self._request(notice))
        except httpx.TransportError as error:
            self.statuses[type(error).__name__] += 1
            return False
        self.statuses[str(answer.status_code)] += 1
        if answer.is_success:
            self._acknowledge(notice, answer.json()["received_at"])
        return not answer.is_server_error

    def _acknowledge(self, notice: Notice, received_at: str | None) -> None:
        nothing = Acknowledged(frozenset(), is_registered=False)
        before = self.acknowledged.get(notice.token.biz_token, nothing)
        received = {datetime.fromisoformat(received_at)} if received_at else set()
        self.acknowledged[notice.token.biz_token] = Acknowledged(
            before.received | received, before.is_registered or notice.kind is NoticeKind.REGISTRATION
        )

    def _request(self, notice: Notice) -> httpx.Request:
        token = notice.token
        if notice.kind is NoticeKind.CALLBACK:
            body = {"BizToken": token.biz_token, "Extra": token.extra}
            return self.client.build_request("POST", "/v1/callbacks", json=body)
        facts = {"subject_ref": token.subject_ref}
        if token.age:
            facts["created_at"] = (_NOW - token.age).isoformat()
        return self.client.build_request("PUT", f"/v1/verifications/{token.biz_token}", json=facts)


# One instant for all, so a repeated registration states the same facts.
_NOW = datetime.now(UTC)
