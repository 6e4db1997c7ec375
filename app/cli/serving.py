"""What keeps running until it is stopped: the demo, the API, workers, the simulator.

SIGTERM ends each of them in good order, with exit code 0.
"""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Annotated, Any

import typer
import uvicorn
from prometheus_client import start_http_server
from rich.console import Console
from starlette.types import ASGIApp

from app.cli.terminal import event_loop, examples, run, settings
from app.demo import run_demo
from app.errors import InvalidRequestError, SetUpError
from app.factory import open_retrieval, open_services
from app.main import create_app
from app.observability import configure_logging
from app.worker import working
from simulator.media import VIDEO_BYTES
from simulator.options import SimulatorOptions
from simulator.server import create_simulator

MOST_CONNECTIONS = 2048  # waiting clients included; further ones are told 503
DRAIN_SECONDS = 5  # for answers under way; with the worker's grace below the 30 s after which containers are killed

app = typer.Typer()

Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine's.")]
Port = Annotated[int, typer.Option(help="Port to listen on; 0 for a free one.", min=0, max=65535)]


@app.command(epilog=examples("faceid-results demo", "faceid-results demo --once"))
def demo(once: Annotated[bool, typer.Option("--once", help="End after the walk.")] = False) -> None:
    """Show the main job on this machine: the service, a simulated FaceID, and one verification of each kind.

    It needs no settings and reads none, uses free ports and a throw-away folder, and leaves nothing behind. With --once
    the exit code says whether everything was as it must be.
    """
    configure_logging("CRITICAL")
    raise typer.Exit(_run_until_stopped(run_demo(Console(), once=once)))


@app.command(epilog=examples("faceid-results serve", "faceid-results serve --host 0.0.0.0 --port 80 --no-worker"))
def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    worker: Annotated[bool, typer.Option(help="Retrieve results in this process as well.")] = True,
) -> None:
    """Serve the API, and retrieve results unless told otherwise.

    Settings come from the environment, .env or faceid-results.toml; TENCENTCLOUD_SECRET_ID, TENCENTCLOUD_SECRET_KEY and
    FACEID_RULE_ID are all that it needs. Callers need a key: see `faceid-results keys create`.
    """
    _end_well_on_sigterm()
    found = settings()

    async def can_start() -> None:
        async with open_services(found) as services:
            if worker:
                async with open_retrieval(services):
                    pass

    run(can_start())
    with _listening(host, port) as listener:
        typer.echo(f"Serving on {_url(host, listener)}, described on {_url(host, listener)}/docs")
        api = create_app(found, with_worker=worker)

        def let_waiters_go() -> None:
            api.state.services.signals.end()

        _serve(api, listener, on_exit=let_waiters_go)


@app.command("worker", epilog=examples("faceid-results worker", "faceid-results worker --metrics-port 9100"))
def work(
    metrics_host: Host = "127.0.0.1",
    metrics_port: Annotated[int | None, typer.Option(help="Serve Prometheus' metrics there.", min=1, max=65535)] = None,
) -> None:
    """Retrieve results, without the API.

    Any number of workers may run, on any number of machines that share DATABASE_URL and MEDIA_URL: together they keep
    to the quota.
    """
    found = settings()
    if metrics_port:
        start_http_server(metrics_port, metrics_host)

    async def until_stopped() -> None:
        async with open_services(found) as services, working(services):
            _settle_in()
            await asyncio.Event().wait()

    _run_until_stopped(until_stopped())


@app.command(
    epilog=examples(
        "faceid-results simulate --scenario unfinished-2",
        "faceid-results simulate --port 0 --latency-ms 300 --requests-per-second 0",
    )
)
def simulate(
    host: Host = "127.0.0.1",
    port: Port = 8100,
    scenario: Annotated[str, typer.Option(help="What tokens play that name no scenario themselves.")] = "passed",
    requests_per_second: Annotated[int, typer.Option(help="The quota of GetDetectInfo; 0 for none.", min=0)] = 50,
    latency_ms: Annotated[int, typer.Option(help="How long each call takes at least.", min=0)] = 0,
    video_bytes: Annotated[int, typer.Option(help="Size of the videos, 0.7 MB at least.", min=0)] = VIDEO_BYTES,
) -> None:
    """Run a FaceID for tests and demos: point FACEID_ENDPOINT, or the official SDK, at it.

    It checks signatures, keeps a quota and invents people. A BizToken says what becomes of it: passed-1, failed-2016,
    unfinished-2, throttled-3, expired, novideo, http502-x2, error-InternalError.
    """
    _end_well_on_sigterm()
    configure_logging("WARNING")
    try:
        options = SimulatorOptions(
            scenario=scenario, requests_per_second=requests_per_second, latency_ms=latency_ms, video_bytes=video_bytes
        )
    except ValueError as error:
        raise InvalidRequestError(str(error)) from None
    with _listening(host, port) as listener:
        for credentials in options.credentials:
            typer.echo(f"FACEID_ENDPOINT={_url(host, listener)}")
            typer.echo(f"TENCENTCLOUD_SECRET_ID={credentials.secret_id}")
            typer.echo(f"TENCENTCLOUD_SECRET_KEY={credentials.secret_key}")
        _serve(create_simulator(options), listener)


def _run_until_stopped(work: Coroutine[Any, Any, int | None]) -> int:
    """Runs it; SIGTERM and the end of the terminal cancel it, which is a good end."""

    async def stoppable() -> int | None:
        task = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGHUP):
            if task and signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await work

    try:
        return run(stoppable()) or 0
    except asyncio.CancelledError:
        return 0


def _end_well_on_sigterm() -> None:
    """The server takes the signal over while it runs, and raises it again when it has shut down."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def _listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections already: the server answers them when it is up."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise SetUpError(f"Port {port} of {host} cannot be listened on: {reason}. Try another --port.") from None


def _url(host: str, listener: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


_YOUNG_OBJECTS = 10_000  # in place of 700, which a single request makes; worth 2 % of it


def _settle_in() -> None:
    """Spares the garbage collector what stays as long as the process: a look at all of it holds everybody up, 60 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


class _Server(uvicorn.Server):
    """A server that settles in when it is up, and says when it is told to stop, while answers are still held."""

    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens."""
        await super().startup(sockets)
        _settle_in()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came."""
        super().handle_exit(sig, frame)
        if self.started:
            self._on_exit()


def _serve(asgi_app: ASGIApp, listener: socket.socket, on_exit: Callable[[], None] = lambda: None) -> None:
    config = uvicorn.Config(
        asgi_app,
        log_config=None,
        access_log=False,  # it would print query strings, and with them BizTokens
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        workers=1,  # whatever WEB_CONCURRENCY says
    )
    server = _Server(config, on_exit)
    with event_loop() as runner:  # made before what it runs: a signal in between would leave that behind
        runner.run(server.serve(sockets=[listener]))
    if not server.started:
        raise SetUpError("The service did not start; its log says why.")
