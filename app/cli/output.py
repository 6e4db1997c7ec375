"""Help texts and printed output, the same for all commands."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Client = Annotated[str, typer.Option(help="Owner of the verifications. An API key sees only those of its own client.")]


def examples(*lines: str) -> str:
    """Formats the examples at the end of a help text."""
    return "\n\n".join(("Examples:", *(f"    {line}" for line in lines)))


def print_error(sentence: str) -> None:
    """Prints a sentence to standard error."""
    typer.echo(f"faceid-results: {sentence}", err=True)


def print_json(value: object) -> None:
    """Prints a value as one line of JSON."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Prints rows as a table."""
    table = Table(*header, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table)


def print_record(record: Mapping[str, Any], prefix: str = "") -> None:
    """Prints one value per line, named by its path, and leaves out absent values."""
    for name, value in record.items():
        if isinstance(value, dict):
            print_record(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            print_record({f"{name}.{number}": item for number, item in enumerate(value, start=1)}, prefix)
        elif value is not None:
            typer.echo(f"{prefix + name:<34} {value}")
