"""What all commands share: settings, the event loop, and how answers and complaints look."""

import asyncio
import getpass
import json
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import typer
import uvicorn
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.config import Settings, read_settings
from app.domain.access import OPERATOR, Caller
from app.observability import configure_logging

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Client = Annotated[str, typer.Option(help="Whose verifications these are: a key sees its own client's only.")]

T = TypeVar("T")


def examples(*lines: str) -> str:
    """The end of a help text."""
    return "\n\n".join(("Examples:", *(f"    {line}" for line in lines)))


def settings(log_level: str | None = None) -> Settings:
    """The settings of this process, which logs from now on.

    Args:
        log_level: "CRITICAL" where the command itself says what went wrong; None for the one in the settings.

    Raises:
        SetUpError: one is wrong.
    """
    found = read_settings()
    configure_logging(log_level or found.log_level)
    return found


def operator() -> Caller:
    """Whoever runs the command, by the name that the system knows."""
    return replace(OPERATOR, name=getpass.getuser())


def event_loop() -> asyncio.Runner:
    """A fresh event loop of the kind that the server uses."""
    return asyncio.Runner(loop_factory=uvicorn.Config("", log_config=None, workers=1).get_loop_factory())


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs it to its end; Ctrl-C cancels it, so that it can tidy up."""
    with event_loop() as runner:
        return runner.run(work)


def complain(sentence: str) -> None:
    """Says on standard error what went wrong."""
    typer.echo(f"faceid-results: {sentence}", err=True)


def print_json(value: object) -> None:
    """One line of JSON."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Rows as people read them."""
    table = Table(*header, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table)


def print_record(record: Mapping[str, Any], prefix: str = "") -> None:
    """One value a line, those of inner records by their path; what is absent is left out."""
    for name, value in record.items():
        if isinstance(value, dict):
            print_record(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            print_record({f"{name}.{number}": item for number, item in enumerate(value, start=1)}, prefix)
        elif value is not None:
            typer.echo(f"{prefix + name:<34} {value}")
