"""The command that exports a list."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from app.cli.output import AsJson, examples, print_json
from app.cli.runtime import load_settings, operator, run_with
from app.domain.detection import Outcome
from app.domain.listing import TimeField
from app.domain.verification import State
from app.errors import InvalidRequestError
from app.factory import Services
from app.routers.rejections import words_of
from app.routers.schemas import ExportQuery
from app.services.export import new_table

_RANGE = [field.removesuffix("_at") for field in TimeField]

app = typer.Typer()


@app.command(
    epilog=examples(
        "faceid-results export november.xlsx --from 2026-11-01T00:00:00+08:00 --to 2026-12-01T00:00:00+08:00",
        "faceid-results export failed.csv --outcome failed --reveal --purpose 'audit 2026-17'",
    )
)
def export(
    file: Annotated[Path, typer.Argument(help="The file to write; its ending is the format: csv, ndjson or xlsx.")],
    start: Annotated[str | None, typer.Option("--from", help="From this instant, like 2026-11-01T00:00:00Z.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Before this instant.")] = None,
    by: Annotated[str, typer.Option(help=f"The instant of --from and --to: {', '.join(_RANGE)}.")] = "received",
    state: Annotated[list[State] | None, typer.Option(help="Only these states.")] = None,
    outcome: Annotated[list[Outcome] | None, typer.Option(help="Only these outcomes.")] = None,
    rule_id: Annotated[str | None, typer.Option(help="Only this rule.")] = None,
    subject_ref: Annotated[str | None, typer.Option(help="Only this reference.")] = None,
    client: Annotated[str | None, typer.Option(help="Only this client.")] = None,
    is_revealed: Annotated[bool, typer.Option("--reveal", help="Unmasked. The audit log records it.")] = False,
    purpose: Annotated[str | None, typer.Option(help="The purpose of --reveal, for the audit log.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a list of verifications to a file, newest first, with the identity masked.

    FILE exists only when the export is complete; an existing one is replaced. Only this user can read it.
    """
    if is_revealed and purpose is None:
        raise InvalidRequestError("--reveal needs --purpose.")
    values: dict[str, object] = {
        "format": file.suffix.removeprefix(".").lower(),
        "state": state or [],
        "outcome": outcome or [],
        "rule_id": rule_id,
        "subject_ref": subject_ref,
        "client": client,
        "reveal": is_revealed,
        f"{by}_from": start,
        f"{by}_to": end,
    }
    try:
        wanted = ExportQuery.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise InvalidRequestError(f"{first['loc'][0]} {words_of(first)}.") from None
    count = run_with(load_settings(), lambda services: _write(services, file, wanted, purpose))
    if as_json:
        print_json({"file": str(file), "count": count})
    else:
        typer.echo(f"{count:,} verifications are in {file}.")


async def _write(services: Services, file: Path, wanted: ExportQuery, purpose: str | None) -> int:
    """Writes the file under another name first; returns the number of verifications."""
    actor = replace(operator(), purpose=purpose)
    table = new_table(wanted.format, is_revealed=wanted.reveal)
    pieces = services.export.write(actor, wanted.filter(), table, is_revealed=wanted.reveal)
    part = file.with_name(f".{file.name}.part")
    # A new file: an existing one could be a link, or open to others.
    part.unlink(missing_ok=True)
    try:
        with (
            os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output,
            _progress() as show,
        ):
            async for piece in pieces:
                output.write(piece)
                show(table.count)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return table.count


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """Shows the number of rows if standard error is a terminal. It has no known end."""
    columns = (SpinnerColumn(), TextColumn("{task.fields[count]:,} verifications"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None, count=0)
        yield lambda count: progress.update(task, count=count)
