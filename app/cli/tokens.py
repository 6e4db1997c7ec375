"""Commands that register tokens by hand, one or many."""

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, nullcontext
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from app import tasks
from app.cli.output import AsJson, Client, examples, print_error, print_json, print_record
from app.cli.runtime import event_loop, load_settings, operator, run_with
from app.cli.token_files import Line, read_batches
from app.config import Settings
from app.domain.api_key import Actor
from app.domain.decision import ErrorClass
from app.domain.rule import DEFAULT_CLIENT
from app.domain.verification import Result, State, TokenFacts, Verification
from app.errors import InvalidRequestError
from app.faceid.error_codes import classify
from app.factory import Services, open_services
from app.routers.rejections import words_of
from app.routers.schemas import VerificationView
from app.services.backfill import BackfillSummary
from app.services.clock import now
from app.worker import working

FETCH_SECONDS = 60.0
# A retry that is further away is not waited for.
_MAX_RETRY_DELAY = timedelta(seconds=5)
_NEEDS_OPERATOR = {ErrorClass.ACCOUNT, ErrorClass.RULE}
# Under the wake-ups, which may be lost.
_POLL_SECONDS = 1.0
_MAX_PRINTED_PROBLEMS = 20

app = typer.Typer()

Rule = Annotated[str | None, typer.Option(help="RuleId of the token; FACEID_RULE_ID by default.", metavar="RULE_ID")]


@app.command(
    epilog=examples("faceid-results fetch CE661F1A-0F1E-45BD-BE13-34C05CEA7681", "faceid-results fetch passed-1 --json")
)
def fetch(
    biz_token: Annotated[str, typer.Argument(help="The BizToken that DetectAuth returned.", metavar="BIZ_TOKEN")],
    rule_id: Rule = None,
    client: Annotated[
        str | None, typer.Option(help="Owner of the verification; by default the only client that has the token.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Register one token, retrieve its result now and print it with the identity masked.

    The exit code is 0 if there is a result, 1 if there is none or not yet. The command ends after a minute at most.
    """
    try:
        facts = Line.model_validate({"biz_token": biz_token, "rule_id": rule_id}).facts()
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise InvalidRequestError(f"{first['loc'][0]} {words_of(first)}.") from None
    result = run_with(load_settings(), lambda services: _retrieve(services, operator(), biz_token, facts, client))
    view = VerificationView.of(result, result.verification.client).model_dump(mode="json")
    (print_json if as_json else print_record)(view)
    raise typer.Exit(0 if view["state"] == State.RETRIEVED else 1)


@app.command(
    epilog=examples(
        "faceid-results backfill tokens.csv",
        "psql -Atc 'SELECT token FROM orders' | faceid-results backfill - --rule-id 1 --json",
    )
)
def backfill(
    file: Annotated[str, typer.Argument(help="Path of the file; - for standard input.", metavar="FILE")],
    rule_id: Annotated[str | None, typer.Option(help="RuleId of lines without one; FACEID_RULE_ID by default.")] = None,
    client: Client = DEFAULT_CLIENT,
    as_json: AsJson = False,
) -> None:
    """Register many tokens. Running workers retrieve their results immediately, within the rate limit.

    FILE has one token a line, or is a CSV file whose first line names its columns: biz_token, and any of rule_id,
    subject_ref, created_at (like 2026-11-23T08:00:00Z; with it the deadline of 72 hours is exact) and purpose. Known
    tokens are not changed, so a file can be used again. The exit code is 0 if all lines are registered, 1 if some are
    not, 2 if the command stopped before the end.
    """
    settings = load_settings()
    summary, is_complete = BackfillSummary(), False
    with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as stream:
        try:
            _register(settings, stream, rule_id, client, summary)
            is_complete = True
        finally:
            _print_summary(summary, is_complete=is_complete, as_json=as_json)
    raise typer.Exit(1 if summary.conflicting or summary.malformed else 0)


async def _retrieve(services: Services, actor: Actor, biz_token: str, facts: TokenFacts, client: str | None) -> Result:
    """Registers and retrieves a verification. Waits for short retries, not for the person and not for an operator."""
    async with working(services):
        client = (await services.intake.register(actor, biz_token, facts, client=client)).verification.client
        before = await services.intake.retrieve_again(actor, biz_token, client=client)
        end = time.monotonic() + FETCH_SECONDS
        with services.wakeups.subscribed(str(before.id)) as changed:
            while True:
                result = await services.read.get(actor, biz_token, client=client)
                if _is_settled(result.verification, before) or time.monotonic() > end:
                    return result
                await tasks.wait_for(changed, _POLL_SECONDS)
                changed.clear()


def _is_settled(verification: Verification, before: Verification) -> bool:
    if verification.due_at is None:
        return True
    if verification.is_leased or verification.attempts == before.attempts:
        return False
    code = verification.last_error_code
    return code is None or classify(code) in _NEEDS_OPERATOR or verification.due_at > now() + _MAX_RETRY_DELAY


def _register(settings: Settings, stream: BinaryIO, rule_id: str | None, client: str, summary: BackfillSummary) -> None:
    """Registers all lines. The file is read outside the event loop, where Ctrl-C also interrupts a blocking read."""
    with event_loop() as runner, _progress(stream) as show:
        stack = AsyncExitStack()
        try:
            services = runner.run(stack.enter_async_context(open_services(settings)))
            default = settings.rules.faceid_rule_id
            has_default_rule = default is not None and settings.rules.rule(default).is_open_to(client)
            for batch in read_batches(stream, rule_id, has_default_rule=has_default_rule):
                runner.run(services.backfill.register(client, batch, summary))
                show(summary)
        finally:
            runner.run(stack.aclose())


@contextmanager
def _progress(stream: BinaryIO) -> Iterator[Callable[[BackfillSummary], None]]:
    """Shows a progress bar if standard error is a terminal. It has an end only if the size of the file is known."""
    status, console = os.fstat(stream.fileno()), Console(stderr=True)
    size = status.st_size if stat.S_ISREG(status.st_mode) else None
    columns = (TextColumn("{task.fields[lines]:,} lines"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=size, lines=0)
        yield lambda summary: progress.update(
            task, completed=None if size is None else stream.tell(), lines=summary.lines
        )


def _print_summary(summary: BackfillSummary, *, is_complete: bool, as_json: bool) -> None:
    if as_json:
        print_json(asdict(summary) | {"complete": is_complete})
    else:
        counts = (f"{getattr(summary, name):,} {name}" for name in ("new", "known", "conflicting", "malformed"))
        typer.echo(f"{summary.lines:,} lines: {', '.join(counts)}.")
        for problem in summary.problems[:_MAX_PRINTED_PROBLEMS]:
            typer.echo(f"line {problem.line}: {problem.reason}", err=True)
        if (more := summary.conflicting + summary.malformed - _MAX_PRINTED_PROBLEMS) > 0:
            typer.echo(f"and {more:,} more lines", err=True)
    if not is_complete:
        print_error(
            f"Stopped after line {summary.lines}. The lines up to there are registered; "
            "run the command again with the same file to continue."
        )
