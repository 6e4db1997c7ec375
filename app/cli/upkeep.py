"""The installation: its schema, and whether everything that it needs is there."""

from dataclasses import asdict

import typer
from rich.text import Text

from app.cli.terminal import AsJson, examples, print_json, print_table, run, settings
from app.config import Settings
from app.factory import open_services
from app.services.doctor import DoctorService, Finding, Status
from app.storage import schema
from app.storage.database import Database

app = typer.Typer()

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "bold red", Status.SKIPPED: "dim"}


@app.command(epilog=examples("faceid-results migrate", "DATABASE_URL=postgresql+asyncpg://… faceid-results migrate"))
def migrate() -> None:
    """Bring the database to the schema of this version. Safe to repeat, and to run while the service is up.

    The embedded database needs none of it: every command brings it up to date by itself.
    """
    run(_migrate(settings("CRITICAL")))
    typer.echo("The schema is the one of this version.")


@app.command(epilog=examples("faceid-results doctor", "faceid-results doctor --json"))
def doctor(as_json: AsJson = False) -> None:
    """Check what the service needs: credentials, clock, database, schema, quota, media store, disk.

    It makes one call to Tencent, for a token that does not exist. The exit code is 0 if nothing has failed (warnings
    are no failures), 1 if something has, 2 if the settings cannot be read.
    """
    found = settings("CRITICAL")
    examination = DoctorService(faceid=found, receive=found, rules=found, database=found, media=found, keyring=found)
    findings = run(examination.examine())
    is_fine = all(finding.status is not Status.FAILED for finding in findings)
    if as_json:
        print_json({"ok": is_fine, "checks": [asdict(finding) for finding in findings]})
    else:
        print_table(("CHECK", "", "FOUND, AND WHAT TO DO"), map(_row, findings))
    raise typer.Exit(0 if is_fine else 1)


async def _migrate(found: Settings) -> None:
    database = Database(found)
    try:
        if database.is_embedded:
            async with open_services(found):  # brings it up to date, and makes its folder before
                return
        await schema.migrate(database)
    finally:
        await database.aclose()


def _row(finding: Finding) -> tuple[str | Text, ...]:
    told = Text.assemble(finding.found, (f"\n{finding.advice}" if finding.advice else "", "bold"))
    return finding.check, Text(finding.status, _STYLES[finding.status]), told
