"""The command line `faceid-results`. Every command explains itself in `--help`, with examples.

    serving       demo, serve, worker, simulate     run until they are stopped
    tokens        fetch, backfill                   register tokens by hand, one or many
    events        events                            what has changed, in order
    exports       export                            write a list of verifications to a file
    stats         stats                             counts of verifications
    maintenance   migrate, doctor                   the installation
    keys          create, list, revoke              API keys
    sessions      list, end                         sessions of the console
    keyring       new, status, rotate               the encryption keys of personal data
    media         adopt, sweep                      the owner and the orphans of the media store
    retention     status, run                       the erasure of expired data
    webhooks      create, list, show, test …        webhook endpoints and what they received
    audit         verify                            the record of who saw what

Exit codes: 0 done; 1 done, and the result is negative; 2 not done, because of the arguments, the settings or a service
that does not answer; 130 stopped by Ctrl-C.
"""

import io
import sys
from importlib.metadata import version
from types import TracebackType
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException
from typer.main import get_command

from app.cli import (
    audit,
    events,
    exports,
    keyring,
    keys,
    maintenance,
    media,
    retention,
    serving,
    sessions,
    stats,
    tokens,
    webhooks,
)
from app.cli.output import print_error
from app.errors import ServiceError, UnavailableError
from app.observability import where

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Retrieves, stores and serves the results of Tencent Cloud FaceID. Start with `faceid-results demo`.",
)
for commands in (serving.app, tokens.app, events.app, exports.app, stats.app, maintenance.app):
    app.add_typer(commands)
app.add_typer(keys.app, name="keys")
app.add_typer(sessions.app, name="sessions")
app.add_typer(keyring.app, name="keyring")
app.add_typer(media.app, name="media")
app.add_typer(retention.app, name="retention")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(audit.app, name="audit")


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"faceid-results {version('faceid-results')}")
        raise typer.Exit


@app.callback()
def options(
    is_version_wanted: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Defines the options of the program itself."""


def main() -> NoReturn:
    """Runs the command. Expected errors are one sentence, and no error shows a traceback."""
    sys.excepthook = _print_internal_error
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Characters that the terminal does not have must not fail the command.
        sys.stdout.reconfigure(errors="replace")
    sys.exit(_exit_code())


def _exit_code() -> int:
    try:
        return get_command(app)(standalone_mode=False) or 0
    except TyperException as error:
        # The message is empty if typer has printed the help instead.
        if message := error.format_message():
            print_error(f"{message.rstrip('.')}. Try `--help`.")
    except UnavailableError as error:
        print_error(error.cause)
    except ServiceError as error:
        print_error(error.detail)
    except OSError as error:
        print_error(f"{error.filename or 'The system'}: {error.strerror}.")
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return 2


def _print_internal_error(kind: type[BaseException], _: BaseException, tb: TracebackType | None) -> None:
    """Prints type and place of an exception, but not its text, which may quote personal data."""
    print_error(f"Internal error ({kind.__name__} at {where(tb)}). Please report this.")
