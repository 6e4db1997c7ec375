"""Commands for API keys."""

import ipaddress
import re
from datetime import timedelta
from typing import Annotated, Any

import typer

from app.cli.output import AsJson, Client, examples, print_error, print_json, print_table
from app.cli.runtime import load_settings, operator, run_with
from app.domain.api_key import ApiKey, Network, Scope
from app.domain.rule import DEFAULT_CLIENT
from app.errors import InvalidRequestError
from app.services.clock import now

app = typer.Typer(no_args_is_help=True, help="API keys: the credentials of the systems that call this service.")


@app.command(
    epilog=examples(
        "faceid-results keys create shop --scope callbacks:write --scope results:read",
        "faceid-results keys create audit --scope results:reveal --expires 7d --json",
        "faceid-results keys create till --scope callbacks:write --network 10.0.0.0/8 --network 2001:db8::/32",
    )
)
def create(
    name: Annotated[str, typer.Argument(help="Name of the system or person that uses the key.", metavar="NAME")],
    scope: Annotated[
        list[Scope], typer.Option(help=f"Permission: {', '.join(Scope)}. Repeat for more.", metavar="SCOPE")
    ],
    client: Client = DEFAULT_CLIENT,
    expires: Annotated[str, typer.Option(help="Days until the key expires.", metavar="DAYSd")] = "90d",
    network: Annotated[
        list[str] | None,
        typer.Option(help="IPv4 or IPv6 network that the key may be used from. Repeat for more; none means any."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key. It is printed once and cannot be recovered."""
    valid_for, networks = _days(expires), [_network(text) for text in network or ()]
    key, text = run_with(
        load_settings(),
        lambda services: services.api_keys.create(
            operator(), name, scope, client=client, valid_for=valid_for, networks=networks
        ),
    )
    if as_json:
        print_json({"id": key.id, "key": text} | _described(key))
    else:
        typer.echo(text)
        typer.echo(f"Save the key now; only its digest is stored. It expires on {key.expires_at:%Y-%m-%d}.", err=True)


@app.command("list", epilog=examples("faceid-results keys list", "faceid-results keys list --json"))
def list_keys(as_json: AsJson = False) -> None:
    """List all API keys, including expired and revoked ones."""
    keys = run_with(load_settings(), lambda services: services.api_keys.list(operator()))
    if as_json:
        print_json([{"id": key.id} | _described(key) for key in keys])
    elif keys:
        print_table(("ID", "NAME", "CLIENT", "SCOPES", "EXPIRES", ""), map(_row, keys))
    else:
        print_error("No API keys yet. Create one with `faceid-results keys create`.")


@app.command(epilog=examples("faceid-results keys revoke 2438a23d285c"))
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, as shown by `keys list`.", metavar="ID")],
) -> None:
    """Revoke an API key. Every process rejects it within 5 seconds."""
    run_with(load_settings(), lambda services: services.api_keys.revoke(operator(), key_id))


def _days(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,3})d", text)
    if match is None:
        raise InvalidRequestError("--expires must be a number of days, like 90d.")
    return timedelta(days=int(match.group(1)))


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise InvalidRequestError("--network must be a network like 10.0.0.0/8 or 2001:db8::/32.") from None


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
    state = "revoked" if key.revoked_at else "expired" if key.expires_at <= now() else ""
    allowed = "\n".join([*sorted(key.scopes), *(f"from {network}" for network in key.networks)])
    return key.id, key.name, key.client, allowed, f"{key.expires_at:%Y-%m-%d}", state
