"""Tokens, one or many, brought in by hand."""

import asyncio
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from app.cli.intake import Line, read_batches
from app.cli.terminal import AsJson, Client, complain, event_loop, examples, print_json, print_record, run, settings
from app.config import Settings
from app.domain.access import OPERATOR, Caller
from app.domain.decision import ErrorClass
from app.domain.verification import Facts, Result, State, Verification
from app.errors import InvalidRequestError
from app.faceid.error_codes import classify
from app.factory import Services, now, open_services
from app.routers.models import VerificationView
from app.services.backfill import BackfillService, Summary
from app.services.newcomers import Newcomers
from app.storage.verifications import VerificationStore
from app.worker import working

FETCH_SECONDS = 60.0
_PATIENCE = timedelta(seconds=5)  # a retry that is further away will not help whoever sits and waits
_FOR_AN_OPERATOR = {ErrorClass.ACCOUNT, ErrorClass.RULE}
_POLL_SECONDS = 1.0  # signals are hints
_MOST_LINES = 20  # of problems on a terminal; --json has more

app = typer.Typer()

Rule = Annotated[str | None, typer.Option(help="The token's RuleId, if it is not FACEID_RULE_ID.", metavar="RULE_ID")]


@app.command(
    epilog=examples("faceid-results fetch CE661F1A-0F1E-45BD-BE13-34C05CEA7681", "faceid-results fetch passed-1 --json")
)
def fetch(
    biz_token: Annotated[str, typer.Argument(help="As DetectAuth returned it.", metavar="BIZ_TOKEN")],
    rule_id: Rule = None,
    client: Client = "default",
    as_json: AsJson = False,
) -> None:
    """Register one token, pull its result now and print it, the identity masked.

    The exit code is 0 if the result is there, 1 if there is none (yet). It takes a minute at most.
    """
    facts = _checked(biz_token, rule_id)
    found = settings("CRITICAL")
    caller = replace(OPERATOR, client=client)

    async def work() -> VerificationView:
        async with open_services(found) as services, working(services):
            await services.receive.register(caller, biz_token, facts)
            asked = await services.receive.retrieve_again(caller, biz_token)
            return VerificationView.of(await _pulled(services, caller, asked))

    view = run(work()).model_dump(mode="json")
    (print_json if as_json else print_record)(view)
    raise typer.Exit(0 if view["state"] == State.RETRIEVED else 1)


@app.command(
    epilog=examples(
        "faceid-results backfill tokens.csv",
        "psql -Atc 'SELECT token FROM orders' | faceid-results backfill - --rule-id 1 --json",
    )
)
def backfill(
    file: Annotated[str, typer.Argument(help="The file; - for standard input.", metavar="FILE")],
    rule_id: Annotated[str | None, typer.Option(help="For lines that name none; otherwise FACEID_RULE_ID.")] = None,
    client: Client = "default",
    as_json: AsJson = False,
) -> None:
    """Register many tokens; the workers retrieve their results at once, within the quota.

    FILE has a token a line, or is a CSV whose first line names its columns: biz_token, and any of rule_id, subject_ref,
    created_at (like 2026-11-23T08:00:00Z; it makes the 72 hours exact) and purpose. What is known already stays as it
    is, so that a file can be repeated. The exit code is 0 if all lines are registered, 1 if some are not, 2 if it
    stopped before the end.
    """
    found = settings("CRITICAL")
    summary, is_complete = Summary(), False
    with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as stream:
        try:
            _register(found, stream, rule_id or found.faceid_rule_id, client, summary)
            is_complete = True
        finally:
            _print_summary(summary, is_complete=is_complete, as_json=as_json)
    raise typer.Exit(1 if summary.conflicting or summary.malformed else 0)


def _checked(biz_token: str, rule_id: str | None) -> Facts:
    try:
        return Line.model_validate({"biz_token": biz_token, "rule_id": rule_id}).facts()
    except ValidationError as error:
        (name, *_) = error.errors(include_input=False)[0]["loc"]
        raise InvalidRequestError(f"That is not a {name}.") from None


async def _pulled(services: Services, caller: Caller, asked: Verification) -> Result:
    """The verification after a pull. Who is not finished is not waited for, nor trouble that lasts."""
    end = time.monotonic() + FETCH_SECONDS
    with services.signals.subscribed(str(asked.id)) as told:
        while True:
            result = await services.query.get(caller, asked.biz_token)
            if _is_settled(result.verification, asked) or time.monotonic() > end:
                return result
            with suppress(TimeoutError):
                await asyncio.wait_for(told.wait(), _POLL_SECONDS)
            told.clear()


def _is_settled(verification: Verification, asked: Verification) -> bool:
    if verification.due_at is None:
        return True
    if verification.leased or verification.attempts == asked.attempts:
        return False
    code = verification.last_error_code
    return code is None or classify(code) in _FOR_AN_OPERATOR or verification.due_at > now() + _PATIENCE


def _register(found: Settings, stream: BinaryIO, rule_id: str | None, client: str, summary: Summary) -> None:
    """The file is read outside of the event loop, where Ctrl-C interrupts also a read that waits."""
    with event_loop() as runner, _progress(stream) as show:
        stack = AsyncExitStack()
        try:
            services = runner.run(stack.enter_async_context(open_services(found)))
            service = BackfillService(
                database=services.database,
                newcomers=Newcomers(found, services.vault),
                verifications=VerificationStore(),
                signals=services.signals,
                clock=now,
            )
            for batch in read_batches(stream, rule_id):
                runner.run(service.register(client, batch, summary))
                show(summary)
        finally:
            runner.run(stack.aclose())


@contextmanager
def _progress(stream: BinaryIO) -> Iterator[Callable[[Summary], None]]:
    """A bar on standard error where that is a terminal; without an end where the file has no size."""
    status, console = os.fstat(stream.fileno()), Console(stderr=True)
    size = status.st_size if stat.S_ISREG(status.st_mode) else None
    columns = (TextColumn("{task.fields[lines]:,} lines"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=size, lines=0)
        yield lambda summary: progress.update(
            task, completed=None if size is None else stream.tell(), lines=summary.lines
        )


def _print_summary(summary: Summary, *, is_complete: bool, as_json: bool) -> None:
    if as_json:
        print_json(asdict(summary) | {"complete": is_complete})
    else:
        counts = (f"{getattr(summary, name):,} {name}" for name in ("new", "known", "conflicting", "malformed"))
        typer.echo(f"{summary.lines:,} lines: {', '.join(counts)}.")
        for problem in summary.problems[:_MOST_LINES]:
            typer.echo(f"line {problem.line}: {problem.reason}", err=True)
        if (more := summary.conflicting + summary.malformed - _MOST_LINES) > 0:
            typer.echo(f"and {more:,} lines more", err=True)
    if not is_complete:
        complain(
            f"Stopped after line {summary.lines}; all before is registered, and the whole file can be given again."
        )
