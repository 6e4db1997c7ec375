"""Commands for the key ring."""

from typing import Annotated, Any

import rich.progress
import typer
from rich.console import Console

from app.cli.output import AsJson, examples, print_error, print_json, print_table
from app.cli.runtime import load_settings, run_with
from app.errors import ConflictError
from app.factory import Services
from app.sealing.keyring import KeyRing, Ring
from app.services.key_rotation import Progress

app = typer.Typer(no_args_is_help=True, help="The key ring: the keys that encrypt all personal data.")

Rings = Annotated[list[Ring] | None, typer.Argument(help="Rings to rotate; all by default.", metavar="RING…")]


@app.command(epilog=examples("KEYRING_FILE=/secure/keyring.json faceid-results keyring new"))
def new() -> None:
    """Create a key ring at KEYRING_FILE, readable by this user only.

    Keep a copy of it, separate from the backups of the database. Encrypted data cannot be read without it. The embedded
    setup creates its key ring at the first start.
    """
    path = load_settings().keyring.keyring_path
    if path.exists():
        raise ConflictError("KEYRING_FILE exists already and was not changed.")
    KeyRing.create(path)
    typer.echo(f"Created the key ring {path}. Keep a copy of it, separate from the backups of the database.")


@app.command(epilog=examples("faceid-results keyring status", "faceid-results keyring status --json"))
def status(as_json: AsJson = False) -> None:
    """Show the versions of each ring, and how many values each version encrypts."""
    rows = run_with(load_settings(), _status)
    if as_json:
        print_json(rows)
    else:
        table = ((row["ring"], str(row["version"]), row["created_at"], f"{row['in_use']:,}") for row in rows)
        print_table(("RING", "VERSION", "CREATED", "IN USE"), table)


@app.command(epilog=examples("faceid-results keyring rotate", "faceid-results keyring rotate identity --destroy"))
def rotate(
    rings: Rings = None,
    destroy: Annotated[
        bool, typer.Option("--destroy", help="Only destroy versions that are no longer in use.")
    ] = False,
) -> None:
    """Create a new version of the rings and encrypt existing values again with it.

    The service keeps running. If the command was interrupted, run it again to continue. At least five minutes later,
    run it with --destroy to remove old versions from the file. Until then, erased data can still be read from a backup.
    """
    work = _destroy if destroy else _rotate
    run_with(load_settings(), lambda services: work(services, rings or list(Ring)))


async def _status(services: Services) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for ring in Ring:
        used = await services.key_rotation.in_use(ring)
        rows += [
            {
                "ring": ring,
                "version": known.version,
                "created_at": f"{known.created_at:%Y-%m-%dT%H:%M:%SZ}",
                "in_use": used.get(known.version, 0),
            }
            for known in services.cipher.keyring.versions(ring)
        ]
    return rows


async def _rotate(services: Services, rings: list[Ring]) -> None:
    console = Console(stderr=True)
    with rich.progress.Progress(console=console, disable=not console.is_terminal) as bar:
        for ring in rings:
            task = bar.add_task(ring)
            state = Progress(0)
            async for state in services.key_rotation.rotate(ring):
                bar.update(task, completed=state.done, total=state.total)
            newest = services.cipher.keyring.newest(ring)
            done = "links new rows" if ring is Ring.AUDIT else f"{state.done:,} values encrypted again"
            typer.echo(f"{ring}: version {newest}, {done}.")
            if state.altered:
                print_error(_skipped(ring, state))
    typer.echo(f"Copy {services.cipher.keyring.path} again: earlier copies cannot decrypt new data.")
    typer.echo("Keep each earlier copy as long as a backup of its time exists.")


def _skipped(ring: Ring, progress: Progress) -> str:
    names = "\n".join(f"  {name}" for name in progress.names)
    return (
        f"{ring}: {progress.altered:,} altered values were skipped and stay under their version:\n{names}\n"
        "Erase these verifications and revoke these keys. Until then their version cannot be destroyed."
    )


async def _destroy(services: Services, rings: list[Ring]) -> None:
    for ring in rings:
        destroyed = await services.key_rotation.destroy_unused(ring)
        typer.echo(f"{ring}: {f'destroyed {destroyed}' if destroyed else 'nothing to destroy'}.")
