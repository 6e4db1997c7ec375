"""Commands for webhook endpoints."""

import re
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated, Any

import typer

from app.cli.output import AsJson, Client, examples, print_error, print_json, print_record, print_table
from app.cli.runtime import load_settings, operator, run_with
from app.domain.deliveries import ReplayKind
from app.domain.detection import Outcome
from app.domain.events import EventType
from app.domain.rule import DEFAULT_CLIENT
from app.domain.webhook_endpoint import MAX_KEEP, WebhookEndpoint
from app.errors import InvalidRequestError
from app.factory import Services
from app.services.webhook_endpoints import EndpointFacts

app = typer.Typer(no_args_is_help=True, help="Webhook endpoints: the receivers of events.")

EndpointId = Annotated[str, typer.Argument(help="Id of the endpoint, as shown by `webhooks list`.", metavar="ID")]
Types = Annotated[list[EventType] | None, typer.Option(help="Type of event. Repeat for more; none means all.")]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_PAGE = 200
_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
_SHOWN = (
    *("id", "client", "url", "host", "description", "events", "outcomes", "rule_ids", "max_per_second", "state"),
    *("disabled_reason", "disabled_at", "failing_since", "last_success_at", "last_failure_at", "paused_until"),
    *("created_at", "updated_at"),
)


@app.command(
    epilog=examples(
        "faceid-results webhooks create https://shop.example/hooks/faceid",
        "faceid-results webhooks create https://shop.example/hooks --client shop --event verification.retrieved --json",
    )
)
def create(
    url: Annotated[str, typer.Argument(help="Address of the receiver.", metavar="URL")],
    client: Client = DEFAULT_CLIENT,
    event: Types = None,
    outcome: Annotated[list[Outcome] | None, typer.Option(help="Outcome. Repeat for more; none means all.")] = None,
    rule_id: Annotated[list[str] | None, typer.Option(help="RuleId. Repeat for more; none means all.")] = None,
    description: Annotated[str | None, typer.Option(help="A note for people.")] = None,
    max_per_second: Annotated[int | None, typer.Option(help="Most deliveries per second.", min=1, max=1000)] = None,
    as_json: AsJson = False,
) -> None:
    """Create a webhook endpoint. Its secret is printed once and cannot be recovered."""
    facts = EndpointFacts(
        url=url,
        events=frozenset(event or ()),
        outcomes=frozenset(outcome or ()),
        rule_ids=frozenset(rule_id or ()),
        description=description,
        max_per_second=max_per_second,
    )
    endpoint, secret = run_with(
        load_settings(), lambda services: services.webhook_endpoints.create(operator(), facts, client=client)
    )
    _print_secret(endpoint, secret, as_json=as_json)


@app.command("list", epilog=examples("faceid-results webhooks list", "faceid-results webhooks list --json"))
def list_endpoints(as_json: AsJson = False) -> None:
    """List all webhook endpoints, without their URLs, which may contain secrets."""
    found = run_with(load_settings(), _read_all)
    if as_json:
        print_json([_described(endpoint) | {"url": None} for endpoint in found])
    elif found:
        print_table(("ID", "CLIENT", "HOST", "EVENTS", "STATE", "LAST ERROR"), map(_row, found))
    else:
        print_error("No webhook endpoints yet. Create one with `faceid-results webhooks create`.")


@app.command(epilog=examples("faceid-results webhooks show we_0123456789abcdef01234567"))
def show(endpoint_id: EndpointId, as_json: AsJson = False) -> None:
    """Show one webhook endpoint."""
    endpoint = run_with(load_settings(), lambda services: services.webhook_endpoints.get(operator(), endpoint_id))
    (print_json if as_json else print_record)(_described(endpoint))


@app.command("test", epilog=examples("faceid-results webhooks test we_0123456789abcdef01234567"))
def send_test(
    endpoint_id: EndpointId,
    event: Annotated[EventType, typer.Option("--type", help="Type of the event.")] = EventType.TEST,
    as_json: AsJson = False,
) -> None:
    """Send a test event now. The exit code is 1 if the receiver does not accept it."""
    answer = run_with(load_settings(), lambda services: services.webhook_endpoints.test(operator(), endpoint_id, event))
    result = {
        "status": answer.status,
        "duration_ms": answer.duration_ms,
        "error": answer.fault,
        "detail": answer.detail,
        "response_head": answer.head,
    }
    (print_json if as_json else print_record)(result)
    raise typer.Exit(1 if answer.fault else 0)


@app.command(epilog=examples("faceid-results webhooks rotate we_0123456789abcdef01234567 --keep-for 48h"))
def rotate(
    endpoint_id: EndpointId,
    keep_for: Annotated[str, typer.Option(help="How long the earlier secret still signs, up to 7d.")] = "24h",
    as_json: AsJson = False,
) -> None:
    """Create a new secret. Until the time ends, messages are signed with both."""
    span = _span(keep_for)
    endpoint, secret = run_with(
        load_settings(), lambda services: services.webhook_endpoints.rotate(operator(), endpoint_id, keep_for=span)
    )
    _print_secret(endpoint, secret, as_json=as_json)


@app.command(
    epilog=examples(
        "faceid-results webhooks replay we_0123456789abcdef01234567 --from 2026-11-20 --which failed --dry-run",
        "faceid-results webhooks replay we_0123456789abcdef01234567 --from 2026-11-20T08:00 --which missing",
    )
)
def replay(
    endpoint_id: EndpointId,
    which: Annotated[ReplayKind, typer.Option(help="Events that failed, that were never sent, or all.")],
    start: Annotated[datetime, typer.Option("--from", formats=_TIMES, help="Events from this time on, in UTC.")],
    end: Annotated[
        datetime | None, typer.Option("--to", formats=_TIMES, help="Events before this time, in UTC; now by default.")
    ] = None,
    event: Types = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the events.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send events of a range of time again, at most 10,000, after all fresh ones. A worker sends them."""
    done = run_with(
        load_settings(),
        lambda services: services.deliveries.replay(
            operator(),
            endpoint_id,
            which,
            start=start.replace(tzinfo=UTC),
            end=end.replace(tzinfo=UTC) if end else services.clock(),
            types=frozenset(event or ()),
            is_dry_run=dry_run,
        ),
    )
    result = {"id": done.id, "count": done.count, "oldest_at": _plain(done.oldest_at), "has_more": done.has_more}
    (print_json if as_json else print_record)(result)


@app.command(epilog=examples("faceid-results webhooks delete we_0123456789abcdef01234567"))
def delete(endpoint_id: EndpointId) -> None:
    """Remove a webhook endpoint with its deliveries."""
    run_with(load_settings(), lambda services: services.webhook_endpoints.delete(operator(), endpoint_id))


async def _read_all(services: Services) -> list[WebhookEndpoint]:
    found: list[WebhookEndpoint] = []
    cursor = None
    while True:
        page = await services.webhook_endpoints.list(operator(), limit=_PAGE, cursor=cursor)
        found += page.endpoints
        cursor = page.next_cursor
        if cursor is None:
            return found


def _span(text: str) -> timedelta:
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    span = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None
    if span is None or span > MAX_KEEP:
        raise InvalidRequestError("--keep-for must be a span like 24h, at most 7d.")
    return span


def _print_secret(endpoint: WebhookEndpoint, secret: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_described(endpoint) | {"secret": secret})
    else:
        typer.echo(secret)
        typer.echo(f"Save the secret of {endpoint.id} now; it is not shown again.", err=True)


def _described(endpoint: WebhookEndpoint) -> dict[str, Any]:
    """Returns an endpoint as the API shows it."""
    values = {name: getattr(endpoint, name) for name in _SHOWN}
    values |= {"last_error": endpoint.last_fault, "previous_secret_until": endpoint.previous_until}
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat(timespec="seconds")
        case frozenset():
            return sorted(value)
        case Enum():
            return value.value
        case _:
            return value


def _row(endpoint: WebhookEndpoint) -> tuple[str, ...]:
    events = "\n".join(sorted(endpoint.events)) or "all"
    return endpoint.id, endpoint.client, endpoint.host, events, endpoint.state, endpoint.last_fault or ""
