"""The command line `faceid-results`: thin; every command says in `--help` what it is for, with examples.

    serving   demo, serve, worker, simulate     what keeps running until it is stopped
    results   fetch, backfill                   tokens, one or many
    upkeep    migrate, doctor                   the installation
    keys      create, list, revoke              who is let in
    keyring   new, status, rotate               what everything personal is sealed with
    audit     verify                            who saw what

Exit codes: 0 done; 1 done, and something is not as it should be; 2 not done, because of how it was called or set up;
130 ended by Ctrl-C.
"""

import io
import sys
from types import TracebackType
from typing import NoReturn

import typer
from typer.exceptions import TyperException
from typer.main import get_command

from app.cli import audit, keyring, keys, results, serving, upkeep
from app.cli.terminal import complain
from app.errors import ServiceError, UnavailableError
from app.observability import where

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Retrieves, keeps and serves the results of Tencent Cloud FaceID. Begin with `faceid-results demo`.",
)
for commands in (serving.app, results.app, upkeep.app):
    app.add_typer(commands)
app.add_typer(keys.app, name="keys")
app.add_typer(keyring.app, name="keyring")
app.add_typer(audit.app, name="audit")


def main() -> NoReturn:
    """The entry point: errors that we foresaw are one sentence, and none shows a traceback."""
    sys.excepthook = _tell_of_a_fault
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character is no reason to fail
    sys.exit(_exit_code())


def _exit_code() -> int:
    try:
        return get_command(app)(standalone_mode=False) or 0
    except TyperException as error:
        if error.format_message():  # empty where typer has shown the help instead
            complain(f"{error.format_message().rstrip('.')}. `--help` says more.")
    except UnavailableError as error:
        complain(f"{error.detail} `faceid-results doctor` says more.")
    except ServiceError as error:
        complain(error.detail)
    except OSError as error:
        complain(f"{error.filename or 'The system'}: {error.strerror}.")
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return 2


def _tell_of_a_fault(kind: type[BaseException], _: BaseException, tb: TracebackType | None) -> None:
    """Says where, and not what: the text of an exception may quote a person's row."""
    complain(f"This is a fault of the program: {kind.__name__} at {where(tb)}. Please report it.")
