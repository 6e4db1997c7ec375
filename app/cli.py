"""The command line `faceid-results`: thin; every command says in `--help` what it is for.

Exit codes: 0 done; 1 done, and something is not as it should be; 2 not done, because of how it was called or set up.
"""

import asyncio
import json
import re
import signal
import sys
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, NoReturn, TypeVar

import typer
import uvicorn
from rich.console import Console
from rich.table import Table
from starlette.types import ASGIApp

from app.config import Settings, read_settings
from app.demo import run_demo
from app.domain.access import OPERATOR, ApiKey, Scope
from app.domain.verification import Facts, State
from app.errors import InvalidRequestError, ServiceError
from app.factory import open_retrieval, open_services
from app.main import create_app
from app.observability import configure_logging
from app.routers.models import PATTERN, VerificationView
from app.simulator.options import SimulatorOptions
from app.simulator.server import create_simulator
from app.storage import schema
from app.storage.database import Database
from app.worker import working

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__.partition(":")[0].replace("`", ""))
keys = typer.Typer(no_args_is_help=True, help="API keys: what other systems show to be let in.")
app.add_typer(keys, name="keys")

MOST_CONNECTIONS = 2048  # waiting clients included; further ones are told 503
FETCH_SECONDS = 60

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Client = Annotated[str, typer.Option(help="Whose verifications: a key sees its own client's only.")]

T = TypeVar("T")


@app.command()
def demo(once: Annotated[bool, typer.Option("--once", help="End after the walk.")] = False) -> None:
    """Show the main job on this machine: the service, a simulated FaceID, and one verification of each kind."""
    configure_logging("ERROR")
    raise typer.Exit(_run(run_demo(Console(), once=once)))


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    worker: Annotated[bool, typer.Option(help="Retrieve results in this process as well.")] = True,
) -> None:
    """Serve the API, and retrieve results unless told otherwise."""
    settings = _settings()

    async def can_start() -> None:
        async with open_services(settings) as services:
            if worker:
                async with open_retrieval(services):
                    pass

    _run(can_start())
    _serve(create_app(settings, with_worker=worker), host, port)


@app.command("worker")
def work() -> None:
    """Retrieve results, without the API. Any number of workers may run, on any number of machines."""
    settings = _settings()

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with open_services(settings) as services, working(services):
            await stop.wait()

    _run(run())


@app.command()
def migrate() -> None:
    """Bring the database to the schema of this version. Safe to repeat, and to run while the service is up."""
    settings = _settings()

    async def run() -> None:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = Database(settings)
        try:
            await schema.migrate(database)
        finally:
            await database.aclose()

    _run(run())


@app.command()
def simulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8100,
    scenario: Annotated[str, typer.Option(help="What tokens play that name no scenario themselves.")] = "passed",
) -> None:
    """Run a FaceID for tests and demos: point FACEID_ENDPOINT, or the official SDK, at it."""
    configure_logging("WARNING")
    options = SimulatorOptions(scenario=scenario)
    for credentials in options.credentials:
        typer.echo(f"FACEID_ENDPOINT=http://{host}:{port}")
        typer.echo(f"TENCENTCLOUD_SECRET_ID={credentials.secret_id}")
        typer.echo(f"TENCENTCLOUD_SECRET_KEY={credentials.secret_key}")
    _serve(create_simulator(options), host, port)


@app.command()
def fetch(biz_token: str, rule_id: Annotated[str | None, typer.Option()] = None, client: Client = "default") -> None:
    """Register one token, pull its result now and print it, the identity masked."""
    if not re.fullmatch(PATTERN, biz_token):
        raise InvalidRequestError("That is not a BizToken.")
    settings = _settings("WARNING")

    async def run() -> VerificationView:
        caller = replace(OPERATOR, client=client)
        async with open_services(settings) as services, working(services):
            await services.receive.register(caller, biz_token, Facts(rule_id=rule_id))
            await services.receive.retrieve_again(caller, biz_token)
            return VerificationView.of(await services.query.wait(caller, biz_token, FETCH_SECONDS))

    view = _run(run())
    typer.echo(view.model_dump_json(indent=2))
    raise typer.Exit(0 if view.state is State.RETRIEVED else 1)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who will use it.")],
    scope: Annotated[list[Scope], typer.Option(help="What it allows; repeat for more.")],
    client: Client = "default",
    expires: Annotated[str, typer.Option(help="Days until it ends.")] = "90d",
    as_json: AsJson = False,
) -> None:
    """Make an API key. It is printed now and never again."""
    valid_for = _days(expires)
    settings = _settings("WARNING")

    async def run() -> tuple[ApiKey, str]:
        async with open_services(settings) as services:
            return await services.access.create(name, scope, client=client, valid_for=valid_for)

    key, text = _run(run())
    if as_json:
        typer.echo(json.dumps({"id": key.id, "key": text} | _described(key)))
    else:
        typer.echo(text)
        typer.echo(f"Keep it now: it is stored as a digest only. It ends on {key.expires_at:%Y-%m-%d}.", err=True)


@keys.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List all API keys, ended ones included."""
    settings = _settings("WARNING")

    async def run() -> Iterable[ApiKey]:
        async with open_services(settings) as services:
            return await services.access.list()

    rows = [{"id": key.id} | _described(key) for key in _run(run())]
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        _print_table(rows)


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(help="The id, as `keys list` shows it.")]) -> None:
    """End an API key; every process refuses it within 5 seconds."""
    settings = _settings("WARNING")

    async def run() -> None:
        async with open_services(settings) as services:
            await services.access.revoke(key_id)

    _run(run())


def main() -> NoReturn:
    """The entry point: errors that we foresaw are one sentence."""
    try:
        app()
    except ServiceError as error:
        typer.echo(f"faceid-results: {error.detail}", err=True)
        sys.exit(2)
    sys.exit(0)


def _settings(log_level: str | None = None) -> Settings:
    settings = read_settings()
    configure_logging(log_level or settings.log_level)
    return settings


def _run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvicorn.Config("", log_config=None).get_loop_factory()) as runner:
        return runner.run(work)


def _serve(asgi_app: ASGIApp, host: str, port: int) -> None:
    uvicorn.run(
        asgi_app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,  # it would print query strings, and with them BizTokens
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=10,
    )


def _days(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,3})d", text)
    if match is None:
        raise InvalidRequestError("--expires takes a number of days, like 90d.")
    return timedelta(days=int(match.group(1)))


def _described(key: ApiKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "client": key.client,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at.isoformat(),
        "expires_at": key.expires_at.isoformat(),
        "revoked_at": key.revoked_at and key.revoked_at.isoformat(),
    }


def _print_table(rows: Iterable[Mapping[str, Any]]) -> None:
    table = Table()
    for row in rows:
        if not table.columns:
            for name in row:
                table.add_column(name)
        table.add_row(*(" ".join(cell) if isinstance(cell, list) else str(cell or "-") for cell in row.values()))
    Console().print(table)
