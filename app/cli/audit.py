"""The audit's chain, verified."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from app.cli.terminal import AsJson, complain, examples, print_json, run, settings
from app.factory import open_services
from app.services.audit import Finding

app = typer.Typer(no_args_is_help=True, help="The audit: who saw what, and whether that record is whole.")


@app.callback()
def audit() -> None:
    """The audit: who saw what, and whether that record is whole."""


@app.command(epilog=examples("faceid-results audit verify", "faceid-results audit verify --seals service.log --json"))
def verify(
    seals: Annotated[
        Path | None, typer.Option(help="The service's log: its `audit_sealed` lines tell of a rewritten chain.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Name the first row of the audit that was changed, removed, inserted or moved.

    The exit code is 0 if there is none, 1 otherwise. Without --seals, compare the last seal with your logs yourself:
    whoever can write the whole database can make a new chain.
    """
    found = settings("CRITICAL")
    logged = _seals(seals.read_text(errors="replace").splitlines()) if seals else {}

    async def work() -> Finding:
        async with open_services(found) as services:
            return await services.audit.verify(logged)

    finding = run(work())
    if as_json:
        print_json(asdict(finding) | {"ok": finding.trouble is None})
    else:
        typer.echo(f"{finding.links:,} rows are whole up to seal {finding.last_hash}.")
        typer.echo(f"{finding.unsealed:,} rows are not sealed yet; {len(logged):,} logged seals were compared.")
    if finding.trouble:
        complain(finding.trouble)
        raise typer.Exit(1)


def _seals(lines: Iterable[str]) -> dict[int, str]:
    """The seals in a log, digests by their positions; what is no seal is passed over."""
    found = {}
    for line in lines:
        try:
            entry = json.loads(line[line.find("{") :])
            if entry["event"] == "audit_sealed":
                found[int(entry["position"])] = str(entry["hash"])
        except (ValueError, KeyError, TypeError):
            continue
    return found
