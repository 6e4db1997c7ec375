"""A Postgres server for kill tests. Unlike the server of the other tests, it makes commits durable by `fsync`."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from tests.support.processes import Child, Command, minded
from tests.support.servers import PostgresUser

_PORT = 5432
# For the recovery: as durable as a sync of each file, and ten times as fast.
_SYNC = ("-c", "recovery_init_sync_method=syncfs") if sys.platform == "linux" else ()
# The start of the process title of a client's backend, which has its user and database.
_CLIENT = "postgres: postgres postgres "


class Postgres:
    """A server in a folder of its own. The caller runs `child`."""

    def __init__(self, folder: Path) -> None:
        self._user = user = PostgresUser(folder)
        user.run(["initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "--no-sync"])
        self.url = f"postgresql+asyncpg://postgres@/postgres?host={user.home}&port={_PORT}"
        self.child = Child(
            "postgres",
            Command(
                arguments=[user.binary("postgres"), "-k", str(user.home), "-h", "", "-p", str(_PORT), *_SYNC],
                environment=user.environment,
                folder=user.home,
                up=self._is_ready,
                stop_signal="INT",
                user=user.id,
            ),
        )

    async def _is_ready(self) -> bool:
        command = [self._user.binary("pg_isready"), "--quiet", f"--host={self._user.home}", f"--port={_PORT}"]
        process = await asyncio.create_subprocess_exec(*command)
        return await process.wait() == 0

    def kill_backend(self) -> bool:
        """Kills the newest backend of a client; returns whether there was one.

        The server then ends all others and recovers.
        """
        backends = self._backends()
        return any(_has_sent(signal.SIGKILL, pid) for pid in backends[-1:])

    def cut_sessions(self) -> None:
        """Ends every session, like an administrator."""
        for pid in self._backends():
            _has_sent(signal.SIGTERM, pid)

    async def accept_writes(self, *, is_writable: bool) -> None:
        """Makes the server read-only, like the former primary after a switchover, or writable again."""
        change = "RESET default_transaction_read_only" if is_writable else "SET default_transaction_read_only = on"
        connection = await asyncpg.connect(user="postgres", host=str(self._user.home), port=_PORT, timeout=5)
        try:
            await connection.execute(f"ALTER SYSTEM {change}")
            await connection.execute("SELECT pg_reload_conf()")
        finally:
            connection.terminate()

    def _backends(self) -> list[int]:
        server = self.child.pid
        return [pid for pid in _children(server) if _CLIENT in _title(pid)] if server else []


@asynccontextmanager
async def durable_postgres(folder: Path) -> AsyncIterator[Postgres]:
    home = folder / "postgres"
    home.mkdir()
    postgres = Postgres(home)
    async with minded([postgres.child]):
        yield postgres


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _has_sent(number: signal.Signals, pid: int) -> bool:
    """Sends a signal; returns False if the process has ended since it was found."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
