"""Commands for the installation: its schema and its diagnosis."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from app.cli.output import AsJson, examples, print_json, print_table
from app.cli.runtime import load_settings, run
from app.config import Settings
from app.doctor import Doctor, Finding, Status
from app.factory import open_services
from app.storage import roles, schema
from app.storage.database import Database

app = typer.Typer()

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "bold red", Status.SKIPPED: "dim"}


@app.command(epilog=examples("faceid-results migrate", "DATABASE_URL=postgresql+asyncpg://… faceid-results migrate"))
def migrate() -> None:
    """Update the database to the schema of this version. Safe to repeat and to run while the service is up.

    With DATABASE_SERVICE_ROLE it also lets this role of Postgres read and write rows, and only append to the audit.

    The embedded database is updated by every command that opens it, so it does not need this one.
    """
    settings = load_settings()
    run(lambda: _migrate(settings))
    typer.echo("The database schema matches this version.")


@app.command(epilog=examples("faceid-results doctor", "faceid-results doctor --json --no-worker"))
def doctor(
    as_json: AsJson = False,
    worker: Annotated[
        bool, typer.Option(help="Check what only workers need, too: the key pair, the clock and the spool.")
    ] = True,
) -> None:
    """Check what the service needs: credentials, clock, database, schema, key ring, quota, media store, disk.

    Writes nothing to disk, and makes one call to Tencent, for a token that does not exist. The exit code is 0 if
    all checks passed or gave warnings, 1 if a check failed, 2 if the settings cannot be read.
    """
    findings = run(Doctor(load_settings(), with_worker=worker).run_checks)
    is_fine = all(finding.status is not Status.FAILED for finding in findings)
    if as_json:
        print_json({"ok": is_fine, "checks": [asdict(finding) for finding in findings]})
    else:
        print_table(("CHECK", "", "RESULT, AND WHAT TO DO"), map(_row, findings))
    raise typer.Exit(0 if is_fine else 1)


async def _migrate(settings: Settings) -> None:
    database = Database(settings.database.direct())
    try:
        if database.is_embedded:
            # Creates its folder if necessary, and migrates it.
            async with open_services(settings):
                return
        await schema.migrate(database)
        if role := settings.database.database_service_role:
            await roles.permit(database, role)
    finally:
        await database.aclose()


def _row(finding: Finding) -> tuple[str | Text, ...]:
    text = Text.assemble(finding.found, (f"\n{finding.advice}" if finding.advice else "", "bold"))
    return finding.check, Text(finding.status, _STYLES[finding.status]), text
