"""Supervised processes, which are restarted immediately whenever they end."""

import asyncio
import json
import pwd
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.servers import WATCHED

_PROBE_SECONDS = 0.05
# Avoids a tight loop while a process cannot start.
_RESTART_SECONDS = 0.1
_UP_SECONDS = 60.0
_STOP_SECONDS = 30.0
_LINES_KEPT = 20


@dataclass
class Command:
    """How a process is started and stopped, and how it is recognised as up, by a log text or by a probe."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    up: Callable[[], Awaitable[bool]] | str
    stop_signal: str = "TERM"
    user: int | None = None


@dataclass
class Child:
    """A supervised process, with the history of its restarts. `run` restarts it until `stop` is called."""

    name: str
    command: Command
    is_up: asyncio.Event = field(default_factory=asyncio.Event)
    starts: int = 0
    was_stuck: bool = False
    exit_codes: Counter[int] = field(default_factory=Counter)
    logged: Counter[str] = field(default_factory=Counter)
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES_KEPT))
    slowest_start: float = 0.0
    slowest_stop: float = 0.0
    _process: asyncio.subprocess.Process | None = None
    _killed: int | None = None
    _stopping: bool = False

    async def run(self) -> None:
        """Starts the process, and again whenever it ends, until `stop` is called."""
        while not self._stopping:
            await self._run_once()
            self.is_up.clear()
            if not self._stopping:
                await asyncio.sleep(_RESTART_SECONDS)

    @property
    def pid(self) -> int | None:
        """The id of the running process."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def kill(self) -> bool:
        """Kills the process; returns whether one was running and not killed already."""
        self.is_up.clear()
        if self._process is None or self.pid in {None, self._killed}:
            return False
        self._killed = self.pid
        self._process.kill()
        return True

    async def until_up(self) -> None:
        """Waits until the process is up.

        Raises:
            RuntimeError: the process did not come up.
        """
        try:
            await asyncio.wait_for(self.is_up.wait(), _UP_SECONDS)
        except TimeoutError:
            raise RuntimeError(f"{self.name} does not come up: {list(self.last_lines)} {self.logged}") from None

    async def stop(self, task: asyncio.Task[None]) -> None:
        """Stops the process, and kills it if it does not end in time."""
        self._stopping = True
        since = time.monotonic()
        if self._process and self._process.stdin:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(asyncio.shield(task), _STOP_SECONDS)
        except TimeoutError:
            self.was_stuck = self.kill()
            await task
        self.slowest_stop = time.monotonic() - since

    async def _run_once(self) -> None:
        command = self.command
        self.starts += 1
        process = self._process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", WATCHED, command.stop_signal, *command.arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            cwd=command.folder,
            env=dict(command.environment),
            user=command.user,
            group=command.user and pwd.getpwuid(command.user).pw_gid,
            extra_groups=None if command.user is None else [],
            start_new_session=True,
        )
        prober = asyncio.create_task(self._probe(time.monotonic()))
        try:
            await self._read(process)
            self.exit_codes[await process.wait()] += 1
        finally:
            prober.cancel()
            with suppress(asyncio.CancelledError):
                await prober
            if process.stdin:
                process.stdin.close()

    async def _probe(self, since: float) -> None:
        if not isinstance(self.command.up, str):
            await until(self.command.up)
            self.is_up.set()
        await self.is_up.wait()
        self.slowest_start = max(self.slowest_start, time.monotonic() - since)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stderr is None:
            return
        async for line in process.stderr:
            text = line.decode(errors="replace").rstrip()
            self._note(text)
            if isinstance(self.command.up, str) and self.command.up in text:
                self.is_up.set()

    def _note(self, text: str) -> None:
        """Counts the log events above INFO by kind."""
        try:
            event = json.loads(text)
        except ValueError:
            self.last_lines.append(text)
            self.logged[text.partition(":")[0]] += "Error" in text or "Traceback" in text
            return
        if event.get("level") in {"warning", "error", "critical"}:
            names = ("level", "event", "error", "sqlstate", "where")
            self.logged[" ".join(str(event[name]) for name in names if event.get(name))] += 1


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Waits until a probe returns true."""
    while True:
        if await is_so():
            return
        await asyncio.sleep(_PROBE_SECONDS)


async def answers(host: str, port: int) -> bool:
    """Returns whether a server listens on the port."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


@asynccontextmanager
async def minded(children: Collection[Child]) -> AsyncIterator[None]:
    """Runs the children during the block, which begins when all are up."""
    tasks = [asyncio.create_task(child.run(), name=child.name) for child in children]
    try:
        await asyncio.gather(*(child.until_up() for child in children))
        yield
    finally:
        await asyncio.gather(*(child.stop(task) for child, task in zip(children, tasks, strict=True)))


@contextmanager
def temporary_folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        # The user that runs Postgres must be able to enter.
        folder.chmod(0o711)
        yield folder
