"""Commands for the erasure of expired data."""

from dataclasses import asdict
from typing import Annotated

import typer

from app.cli.output import AsJson, examples, print_json
from app.cli.runtime import load_settings, operator, run_with
from app.services.erase import Overdue

app = typer.Typer(no_args_is_help=True, help="The erasure of data whose retention has ended.")

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command(epilog=examples("faceid-results retention status", "faceid-results retention status --json"))
def status(as_json: AsJson = False) -> None:
    """Count the verifications whose retention has ended."""
    overdue = run_with(load_settings(), lambda services: services.erase.find_overdue())
    if as_json:
        print_json(asdict(overdue) | {"at": _time(overdue), "unusual": overdue.is_unusual})
    else:
        typer.echo(_described(overdue))


@app.command(epilog=examples("faceid-results retention run", "faceid-results retention run --yes"))
def run(yes: Yes = False) -> None:
    """Erase all data whose retention has ended, even if it is an unusual amount.

    The worker erases expired data every minute. It stops and waits for this command if much is overdue, because a wrong
    clock may be the reason. Check the date of this machine and of the database first. Erased data cannot be restored.
    """
    settings = load_settings()
    overdue = run_with(settings, lambda services: services.erase.find_overdue())
    typer.echo(f"The service's clock shows {_time(overdue)}.")
    typer.echo(_described(overdue))
    if overdue.due and not yes:
        typer.confirm("Erase them?", abort=True)
    erased = run_with(settings, lambda services: services.erase.erase_overdue(operator()))
    typer.echo(f"{erased:,} erased.")


def _time(overdue: Overdue) -> str:
    return f"{overdue.at:%Y-%m-%dT%H:%M:%SZ}"


def _described(overdue: Overdue) -> str:
    return (
        f"{overdue.due:,} of {overdue.all:,} verifications have expired text or media; "
        f"{overdue.late:,} of them for more than an hour."
    )
