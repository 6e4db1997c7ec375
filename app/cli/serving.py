"""Commands that run until they are stopped: demo, serve, worker, simulate.

SIGTERM ends each of them in good order, with exit code 0.
"""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer
from prometheus_client import start_http_server
from rich.console import Console

from app.cli.demo import run_demo
from app.cli.output import examples
from app.cli.runtime import load_settings, run_until_stopped
from app.cli.server import exclude_startup_from_gc, listen, serving, url_of
from app.config import Settings
from app.errors import InvalidRequestError
from app.factory import open_retrieval, open_services
from app.main import create_app
from app.observability import configure_logging
from app.worker import working
from simulator.media import VIDEO_BYTES
from simulator.options import DEMO_CREDENTIALS, SimulatorOptions
from simulator.server import create_simulator

app = typer.Typer()

DEMO_DAYS = 30

Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all addresses of this machine.")]
Port = Annotated[int, typer.Option(help="Port to listen on; 0 for a free one.", min=0, max=65535)]


@app.command(epilog=examples("faceid-results demo", "faceid-results demo --once"))
def demo(
    once: Annotated[
        bool, typer.Option("--once", help="End after the five verifications, without a history by default.")
    ] = False,
    days: Annotated[
        int | None, typer.Option(help="Days of history to create first, 30 by default.", min=0, max=DEMO_DAYS)
    ] = None,
    seed: Annotated[str, typer.Option(help="Decides which invented people the history has.")] = "1",
    at: Annotated[
        datetime | None,
        typer.Option(help="Begin with this time, in UTC, instead of the machine's.", show_default=False),
    ] = None,
) -> None:
    """Run the service and a simulated FaceID on this machine, with one verification of each kind.

    The demo needs no settings and reads none. It uses free ports and a temporary folder, which is removed at the end.
    With --once, the exit code is 0 if every verification ended as expected, 1 otherwise.
    """
    configure_logging("CRITICAL")
    if days is None:
        days = 0 if once else DEMO_DAYS
    begin = at.replace(tzinfo=UTC) if at else None
    raise typer.Exit(run_until_stopped(lambda: run_demo(Console(), once=once, days=days, seed=seed, at=begin)))


@app.command(epilog=examples("faceid-results serve", "faceid-results serve --host 0.0.0.0 --port 80 --no-worker"))
def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    worker: Annotated[bool, typer.Option(help="Retrieve results in this process, too.")] = True,
) -> None:
    """Serve the HTTP API and, by default, retrieve results in the same process.

    Settings come from the environment, .env or faceid-results.toml. Required are TENCENTCLOUD_SECRET_ID,
    TENCENTCLOUD_SECRET_KEY and FACEID_RULE_ID. Callers need an API key: see `faceid-results keys create`.
    """
    settings = load_settings(is_logged=True)
    run_until_stopped(lambda: _serve(settings, host, port, with_worker=worker))


@app.command("worker", epilog=examples("faceid-results worker", "faceid-results worker --metrics-port 9100"))
def work(
    metrics_host: Host = "127.0.0.1",
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics on this port.", min=1, max=65535)
    ] = None,
) -> None:
    """Retrieve results, without the HTTP API.

    Any number of workers may run on any number of machines that share DATABASE_URL and MEDIA_URL. They share the rate
    limit of each Tencent account.
    """
    settings = load_settings(is_logged=True)
    if metrics_port:
        start_http_server(metrics_port, metrics_host)
    run_until_stopped(lambda: _work(settings))


@app.command(
    epilog=examples(
        "faceid-results simulate --scenario unfinished-2",
        "faceid-results simulate --port 0 --latency-ms 300 --requests-per-second 0",
    )
)
def simulate(
    host: Host = "127.0.0.1",
    port: Port = 8100,
    scenario: Annotated[str, typer.Option(help="Scenario of tokens that select none.")] = "passed",
    requests_per_second: Annotated[int, typer.Option(help="Rate limit of GetDetectInfo; 0 for none.", min=0)] = 50,
    latency_ms: Annotated[int, typer.Option(help="Delay of each call.", min=0)] = 0,
    video_bytes: Annotated[int, typer.Option(help="Size of each video; at least 0.7 MB.", min=0)] = VIDEO_BYTES,
) -> None:
    """Run a simulated FaceID endpoint for tests and demos.

    Set FACEID_ENDPOINT, or the endpoint of the official SDK, to its address. It checks signatures, enforces rate limits
    and invents people and media. The start of a BizToken selects the answer: passed-1, failed-2016, unfinished-2,
    throttled-3, expired, novideo, http502-x2, error-InternalError.
    """
    configure_logging("WARNING")
    try:
        options = SimulatorOptions(
            scenario=scenario, requests_per_second=requests_per_second, latency_ms=latency_ms, video_bytes=video_bytes
        )
    except ValueError as error:
        raise InvalidRequestError(str(error)) from None
    run_until_stopped(lambda: _simulate(options, host, port))


async def _serve(settings: Settings, host: str, port: int, *, with_worker: bool) -> None:
    # The server would only log errors in the settings: open everything once to report them in a sentence.
    async with open_services(settings) as services:
        await services.media_guard.confirm_owner()
        if with_worker:
            async with open_retrieval(services):
                pass
    api = create_app(settings, with_worker=with_worker)
    with listen(host, port) as listener:
        async with serving(api, listener, keepalive_seconds=settings.process.http_keepalive_seconds) as server:
            exclude_startup_from_gc()
            typer.echo(f"Serving on {url_of(listener)}, described on {url_of(listener)}/docs")
            try:
                await asyncio.wait([server])
            finally:
                # Waiting clients get the current state.
                api.state.services.wakeups.end()


async def _work(settings: Settings) -> None:
    async with open_services(settings) as services, working(services):
        exclude_startup_from_gc()
        await asyncio.Event().wait()


async def _simulate(options: SimulatorOptions, host: str, port: int) -> None:
    with listen(host, port) as listener:
        async with serving(create_simulator(options), listener) as server:
            exclude_startup_from_gc()
            typer.echo(f"FACEID_ENDPOINT={url_of(listener)}")
            typer.echo(f"TENCENTCLOUD_SECRET_ID={DEMO_CREDENTIALS.secret_id}")
            typer.echo(f"TENCENTCLOUD_SECRET_KEY={DEMO_CREDENTIALS.secret_key}")
            await asyncio.wait([server])
