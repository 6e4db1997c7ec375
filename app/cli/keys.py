"""API keys: what other systems show to be let in."""

import ipaddress
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

import typer

from app.cli.terminal import AsJson, Client, complain, examples, operator, print_json, print_table, run, settings
from app.domain.access import ApiKey, Network, Scope
from app.errors import InvalidRequestError
from app.factory import now, open_services

app = typer.Typer(no_args_is_help=True, help="API keys: what other systems show to be let in.")


@app.command(
    epilog=examples(
        "faceid-results keys create shop --scope callbacks:write --scope results:read",
        "faceid-results keys create audit --scope results:reveal --expires 7d --json",
        "faceid-results keys create till --scope callbacks:write --network 10.0.0.0/8 --network 2001:db8::/32",
    )
)
def create(
    name: Annotated[str, typer.Argument(help="Who will use it.", metavar="NAME")],
    scope: Annotated[
        list[Scope], typer.Option(help=f"What it allows, of {', '.join(Scope)}; repeat for more.", metavar="SCOPE")
    ],
    client: Client = "default",
    expires: Annotated[str, typer.Option(help="Days until it ends.", metavar="DAYSd")] = "90d",
    network: Annotated[
        list[str] | None,
        typer.Option(help="Where it may be used from, IPv4 or IPv6; repeat for more, none for anywhere."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key. It is printed now and never again."""
    valid_for, networks = _days(expires), [_network(text) for text in network or ()]
    found = settings("CRITICAL")

    async def work() -> tuple[ApiKey, str]:
        async with open_services(found) as services:
            return await services.access.create(
                name, scope, client=client, valid_for=valid_for, networks=networks, by=operator()
            )

    key, text = run(work())
    if as_json:
        print_json({"id": key.id, "key": text} | _described(key))
    else:
        typer.echo(text)
        typer.echo(
            f"Keep it now: a sealed digest is all that is stored of it. It ends on {key.expires_at:%Y-%m-%d}.", err=True
        )


@app.command("list", epilog=examples("faceid-results keys list", "faceid-results keys list --json"))
def list_keys(as_json: AsJson = False) -> None:
    """List all API keys, ended ones included."""
    found = settings("CRITICAL")

    async def work() -> Sequence[ApiKey]:
        async with open_services(found) as services:
            return await services.access.list()

    made = run(work())
    if as_json:
        print_json([{"id": key.id} | _described(key) for key in made])
    elif made:
        print_table(("ID", "NAME", "CLIENT", "SCOPES", "ENDS", ""), map(_row, made))
    else:
        complain("There is no key yet; make one with `faceid-results keys create`.")


@app.command(epilog=examples("faceid-results keys revoke 2438a23d285c"))
def revoke(key_id: Annotated[str, typer.Argument(help="The id, as `keys list` shows it.", metavar="ID")]) -> None:
    """End an API key; every process refuses it within 5 seconds."""
    found = settings("CRITICAL")

    async def work() -> None:
        async with open_services(found) as services:
            await services.access.revoke(key_id, by=operator())

    run(work())


def _days(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,3})d", text)
    if match is None:
        raise InvalidRequestError("--expires takes a number of days, like 90d.")
    return timedelta(days=int(match.group(1)))


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise InvalidRequestError("--network takes a network like 10.0.0.0/8 or 2001:db8::/32.") from None


def _described(key: ApiKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "client": key.client,
        "scopes": sorted(key.scopes),
        "networks": [str(network) for network in key.networks],
        "created_at": key.created_at.isoformat(timespec="seconds"),
        "expires_at": key.expires_at.isoformat(timespec="seconds"),
        "revoked_at": key.revoked_at and key.revoked_at.isoformat(timespec="seconds"),
    }


def _row(key: ApiKey) -> tuple[str, ...]:
    life = "revoked" if key.revoked_at else "over" if key.expires_at <= now() else ""
    allowed = "\n".join([*sorted(key.scopes), *(f"from {network}" for network in key.networks)])
    return key.id, key.name, key.client, allowed, f"{key.expires_at:%Y-%m-%d}", life
