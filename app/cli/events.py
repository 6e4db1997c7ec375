"""The command that prints events."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from app.cli.output import AsJson, examples, print_json
from app.cli.runtime import load_settings, operator, run_with
from app.domain.events import Event, EventFilter, EventType, body
from app.errors import InvalidRequestError
from app.factory import Services

_PAGE = 500
_WAIT_SECONDS = 30.0

app = typer.Typer()


@app.command(
    epilog=examples(
        "faceid-results events",
        "faceid-results events --follow --types verification.failed,verification.expired",
        "faceid-results events --after 4711 --json",
    )
)
def events(
    follow: Annotated[bool, typer.Option("--follow", help="Wait for further events, until Ctrl-C.")] = False,
    after: Annotated[int, typer.Option(help="Position of the last known event; 0 for the oldest kept.", min=0)] = 0,
    types: Annotated[str, typer.Option(help="Types of events, separated by commas; all by default.")] = "",
    client: Annotated[str | None, typer.Option(help="Owner of the verifications; all by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what has changed, oldest first, one event a line. Events are kept for 30 days.

    The first column is the position. With --json, each line is the event as webhooks send it, and its `position`.
    """
    wanted = EventFilter(client=client, types=_types(types))
    run_with(load_settings(), lambda services: _print_all(services, wanted, after, follow=follow, as_json=as_json))


async def _print_all(services: Services, wanted: EventFilter, after: int, *, follow: bool, as_json: bool) -> None:
    actor = operator()
    while True:
        wait_seconds = _WAIT_SECONDS if follow else 0
        page = await services.events.list(actor, wanted, after=after, limit=_PAGE, wait_seconds=wait_seconds)
        for event in page.events:
            _print(event, as_json=as_json)
        if page.is_end and not follow:
            return
        after = page.next_after


def _print(event: Event, *, as_json: bool) -> None:
    content: Mapping[str, Any] = json.loads(body(event))
    if as_json:
        print_json({"position": event.position, **content})
        return
    about = event.biz_token or " ".join(map(str, content["data"].values()))
    result = event.outcome or event.state or ""
    typer.echo(f"{event.position:>10}  {content['timestamp']}  {event.type:<24}  {event.client}  {about}  {result}")


def _types(text: str) -> tuple[EventType, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in set(EventType)]
    if unknown:
        raise InvalidRequestError(f"--types must be among {', '.join(EventType)}.")
    return tuple(map(EventType, names))
