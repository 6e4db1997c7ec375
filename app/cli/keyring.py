"""The key ring: made, looked at, rotated."""

from contextlib import AsyncExitStack
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from app.cli.terminal import AsJson, examples, print_json, print_table, run, settings
from app.config import Settings
from app.errors import ConflictError
from app.factory import open_services, rotation
from app.sealing.keyring import KeyRing, Ring

app = typer.Typer(no_args_is_help=True, help="The key ring: what everything personal is sealed with.")

Rings = Annotated[list[Ring] | None, typer.Argument(help="Which rings; all of them by default.", metavar="RING…")]


@app.command(epilog=examples("KEYRING_FILE=/secure/keyring.json faceid-results keyring new"))
def new() -> None:
    """Make a key ring at KEYRING_FILE, readable for this user alone.

    Keep a copy of it apart from all backups of the database: without it nothing that is sealed can be read again. The
    embedded set-up makes its own with the first start.
    """
    path = settings("CRITICAL").keyring_path
    if path.exists():
        raise ConflictError("There is a file at KEYRING_FILE already, and it stays as it is.")
    KeyRing.create(path)
    typer.echo(f"The key ring is {path}. Keep a copy of it, and keep that apart from the database's backups.")


@app.command(epilog=examples("faceid-results keyring status", "faceid-results keyring status --json"))
def status(as_json: AsJson = False) -> None:
    """Show the versions of each ring, and how much depends on each."""
    found = settings("CRITICAL")
    rows = run(_status(found))
    if as_json:
        print_json(rows)
    else:
        table = ((row["ring"], str(row["version"]), row["created_at"], f"{row['in_use']:,}") for row in rows)
        print_table(("RING", "VERSION", "MADE", "IN USE"), table)


@app.command(epilog=examples("faceid-results keyring rotate", "faceid-results keyring rotate identity --destroy"))
def rotate(
    rings: Rings = None,
    destroy: Annotated[bool, typer.Option("--destroy", help="Only destroy the versions that nothing needs.")] = False,
) -> None:
    """Make a newer version of the rings, and seal by it what older ones have sealed.

    Everything can be read meanwhile. What was interrupted goes on when it is run again. Afterwards, but not within five
    minutes, --destroy takes the older versions out of the file: only then is it certain that nobody reads what was
    erased, out of whatever backup.
    """
    found = settings("CRITICAL")
    run(_destroy(found, rings or list(Ring)) if destroy else _rotate(found, rings or list(Ring)))


async def _status(found: Settings) -> list[dict[str, Any]]:
    async with open_services(found) as services:
        rotate = rotation(services)
        rows: list[dict[str, Any]] = []
        for ring in Ring:
            used = await rotate.in_use(ring)
            rows += [
                {
                    "ring": ring,
                    "version": known.version,
                    "created_at": f"{known.created_at:%Y-%m-%dT%H:%M:%SZ}",
                    "in_use": used.get(known.version, 0),
                }
                for known in services.vault.keyring.versions(ring)
            ]
    return rows


async def _rotate(found: Settings, rings: list[Ring]) -> None:
    console = Console(stderr=True)
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_services(found))
        progress = stack.enter_context(Progress(console=console, disable=not console.is_terminal))
        for ring in rings:
            task = progress.add_task(ring)
            done = 0
            async for done, total in rotation(services).rotate(ring):
                progress.update(task, completed=done, total=total)
            typer.echo(f"{ring}: version {services.vault.keyring.newest(ring)}, {done:,} sealed anew.")


async def _destroy(found: Settings, rings: list[Ring]) -> None:
    async with open_services(found) as services:
        for ring in rings:
            gone = await rotation(services).destroy_unused(ring)
            typer.echo(f"{ring}: {f'destroyed {gone}' if gone else 'nothing to destroy'}.")
