"""Commands for the sessions of the console."""

from typing import Annotated, Any

import typer

from app.cli.output import AsJson, examples, print_error, print_json, print_table
from app.cli.runtime import load_settings, operator, run_with
from app.domain.session import ConsoleSession

app = typer.Typer(no_args_is_help=True, help="Sessions of the console: who is signed in.")


@app.command("list", epilog=examples("faceid-results sessions list", "faceid-results sessions list --json"))
def list_sessions(as_json: AsJson = False) -> None:
    """List the newest 1,000 sessions that have not ended. HOLDER is the API key, or `oidc:` and the person.

    Those of people are listed only with the settings of single sign-on that the API has.
    """
    sessions = run_with(load_settings(), lambda services: services.sessions.list(operator()))
    if as_json:
        print_json([_described(session) for session in sessions])
    elif sessions:
        rows = ([*map(str, _described(session).values())] for session in sessions)
        print_table(("HOLDER", "NAME", "CLIENT", "BEGAN", "LAST REQUEST", "ENDS"), rows)
    else:
        print_error("No session is open.")


@app.command(epilog=examples("faceid-results sessions end oidc:248289761001"))
def end(
    holder: Annotated[str, typer.Argument(help="API key or person, as shown by `sessions list`.", metavar="HOLDER")],
) -> None:
    """End all sessions of an API key or a person at once. The key, or the provider, still opens new ones."""
    count = run_with(load_settings(), lambda services: services.sessions.end_all(operator(), holder))
    typer.echo(f"{count} sessions ended.")


def _described(session: ConsoleSession) -> dict[str, Any]:
    return {
        "holder": session.caller_id,
        "name": session.name,
        "client": session.client,
        "created_at": session.created_at.isoformat(timespec="seconds"),
        "seen_at": session.seen_at.isoformat(timespec="seconds"),
        "expires_at": session.expires_at.isoformat(timespec="seconds"),
    }
