"""Commands for the media store."""

from typing import Annotated

import typer

from app.cli.output import examples
from app.cli.runtime import load_settings, run_with

app = typer.Typer(no_args_is_help=True, help="The media store: its owner, and objects that no row names.")

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command(epilog=examples("faceid-results media adopt", "faceid-results media adopt --yes"))
def adopt(yes: Yes = False) -> None:
    """Make this database the owner of the media store, after a restore or a move.

    A store belongs to one database, which removes the objects that it does not know. If another service still uses the
    store, it would lose its media.
    """
    settings = load_settings()
    if not yes:
        typer.confirm(f"Does no other database use {settings.media.media_location.geturl()}?", abort=True)
    run_with(settings, lambda services: services.media_guard.adopt())
    typer.echo("This database owns the media store.")


@app.command(epilog=examples("faceid-results media sweep", "faceid-results media sweep --yes"))
def sweep(yes: Yes = False) -> None:
    """Remove the objects that no row of the database names, even if they are most of the store.

    The worker removes them every hour. It leaves them if the database has no verifications or if most objects are
    orphans, because the database may be the wrong one or older than the store.
    """
    settings = load_settings()
    found = run_with(settings, lambda services: services.orphans.find())
    typer.echo(f"{len(found.keys):,} of {found.checked:,} objects that are older than an hour have no row.")
    if found.keys and not yes:
        typer.confirm("Remove them?", abort=True)
    removed = run_with(settings, lambda services: services.orphans.remove(found))
    typer.echo(f"{removed:,} removed.")
