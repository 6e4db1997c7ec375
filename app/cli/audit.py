"""Commands for the audit log."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from app.cli.output import AsJson, examples, print_error, print_json
from app.cli.runtime import load_settings, run_with

app = typer.Typer(no_args_is_help=True, help="The audit log: who saw what.")


@app.callback()
def audit() -> None:
    """The audit log: who saw what."""


@app.command(epilog=examples("faceid-results audit verify", "faceid-results audit verify --seals service.log --json"))
def verify(
    seals: Annotated[
        Path | None, typer.Option(help="The service's log. Its `audit_sealed` lines reveal a rewritten chain.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the first row of the audit log that was changed, removed, inserted or moved.

    The exit code is 0 if there is none, 1 otherwise. Without --seals, compare the printed seal with your logs: someone
    with write access to the database could have rebuilt the whole chain.
    """
    logged = _seals(seals.read_text(errors="replace").splitlines()) if seals else {}
    report = run_with(load_settings(), lambda services: services.audit.verify(logged))
    if as_json:
        print_json(asdict(report) | {"ok": report.trouble is None})
    else:
        typer.echo(f"{report.links:,} rows are unchanged up to seal {report.last_hash}.")
        typer.echo(f"{report.unsealed:,} rows are not sealed yet; {len(logged):,} logged seals were compared.")
    if report.trouble:
        print_error(report.trouble)
        raise typer.Exit(1)


def _seals(lines: Iterable[str]) -> dict[int, str]:
    """Returns the seals in a log, digests by position. Other lines are skipped."""
    found = {}
    for line in lines:
        try:
            entry = json.loads(line[line.find("{") :])
            if entry["event"] == "audit_sealed":
                found[int(entry["position"])] = str(entry["hash"])
        except (ValueError, KeyError, TypeError):
            continue
    return found
