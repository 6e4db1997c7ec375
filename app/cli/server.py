"""HTTP servers inside a command."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from app.config import KEEPALIVE_SECONDS
from app.errors import ConfigurationError

# Waiting clients and streams included. Further connections are answered with 503.
MAX_CONNECTIONS = 4096
# For responses in flight. Together with the worker's grace period it stays below 15 s.
DRAIN_SECONDS = 5
# Instead of 700, which a single request allocates. Worth 2 % of a request.
_YOUNG_OBJECTS = 10_000


class _Server(uvicorn.Server):
    """A uvicorn server that reports the end of its startup, and leaves signals to the command that runs it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.startup_ended = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application. If that fails, `started` stays false."""
        try:
            await super().startup(sockets)
        except SystemExit:
            # Uvicorn's way to report the failure. It would end the event loop before anything else is closed.
            self.should_exit = True
        finally:
            self.startup_ended.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Installs no signal handlers."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """Opens a listening socket, on a free port if `port` is 0.

    Raises:
        ConfigurationError: the address is not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise ConfigurationError(f"Cannot listen on port {port} of {host}: {reason}. Try another --port.") from None


def url_of(listener: socket.socket) -> str:
    """Returns the HTTP address of a listening socket."""
    host, port, *_ = listener.getsockname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@asynccontextmanager
async def serving(
    app: ASGIApp, listener: socket.socket, *, keepalive_seconds: int = KEEPALIVE_SECONDS
) -> AsyncIterator[asyncio.Task[None]]:
    """Serves the application while the block runs, and lets responses in flight finish afterwards.

    Args:
        app: the application.
        listener: the socket to accept connections on.
        keepalive_seconds: how long a connection without requests stays open.

    Yields:
        The server's task, which ends before the block does only if the server fails.

    Raises:
        ConfigurationError: the application did not start.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        # It would print query strings, and BizTokens in them.
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=keepalive_seconds,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        # Otherwise WEB_CONCURRENCY decides.
        workers=1,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="server")
    try:
        await server.startup_ended.wait()
        if not server.started:
            raise ConfigurationError("The service did not start. See its log for the cause.")
        yield task
    finally:
        server.should_exit = True
        await task


def exclude_startup_from_gc() -> None:
    """Excludes everything allocated so far from garbage collection: a full collection would stop requests for 60 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
