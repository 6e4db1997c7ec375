"""API keys: listed, created and revoked by admins."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fastapi import APIRouter, Response

from app.console.language import marked as _
from app.console.rendering import Notice
from app.console.visits import Fields, PageRoute, SignedInVisit, Visit, fields_of, see_other
from app.domain.api_key import ApiKey, Network, Scope
from app.domain.rule import DEFAULT_CLIENT

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_PATH = "/admin/keys"
_MAX_LINE, _MAX_DAYS, _MAX_NETWORKS = 256, 3650, 20
_NONE = Notice()
_DONE = {"revoke": _("The key is revoked. Every process rejects it within 5 seconds.")}
_INCOMPLETE = _("Enter a name, choose at least one permission, and give 1 to 3650 days.")
_WRONG_NETWORK = _("A network is like 10.0.0.0/8 or 2001:db8::/32; separate several by blanks.")
_WRONG_NAME = _("The name of the key is not this one, so it was not revoked.")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysPage:
    """The keys, the form for a new one with what was entered, and the secret of one that was just created."""

    keys: Sequence[ApiKey]
    now: datetime
    entered: Fields
    scopes: Sequence[Scope]
    own_id: str
    created: ApiKey | None = None
    secret: str | None = None
    notice: Notice


@router.get(_PATH)
async def show(visit: SignedInVisit) -> Response:
    """Shows the keys."""
    query = visit.request.query_params
    problem = _WRONG_NAME if query.get("problem") == "name" else None
    return await _page(visit, notice=Notice(done=_DONE.get(query.get("done", "")), problem=problem))


@router.post(_PATH)
async def create(visit: SignedInVisit) -> Response:
    """Creates a key. This answer is the only one that has its secret, so it is a page and no redirect."""
    fields = await fields_of(visit.request)
    name, days = fields.get("name", ""), fields.get("days", "")
    scopes = [scope for scope in Scope if f"scope_{scope}" in fields]
    is_complete = name.isprintable() and 0 < len(name) <= _MAX_LINE and scopes
    if not is_complete or not days.isascii() or not days.isdigit() or not 1 <= int(days[:5]) <= _MAX_DAYS:
        return await _page(visit, entered=fields, notice=Notice(problem=_INCOMPLETE), status=400)
    networks = _networks(fields.get("networks", ""))
    if networks is None:
        return await _page(visit, entered=fields, notice=Notice(problem=_WRONG_NETWORK), status=400)
    key, secret = await visit.services.api_keys.create(
        visit.actor,
        name,
        scopes,
        client=fields.get("client", "")[:_MAX_LINE] or DEFAULT_CLIENT,
        valid_for=timedelta(days=int(days)),
        networks=networks,
    )
    return await _page(visit, created=key, secret=secret)


@router.post(f"{_PATH}/{{key_id}}/revoke")
async def revoke(visit: SignedInVisit, key_id: str) -> Response:
    """Revokes a key, after its name was entered as a confirmation."""
    fields = await fields_of(visit.request)
    keys = await visit.services.api_keys.list(visit.actor)
    if not any(key.id == key_id and key.name == fields.get("name") for key in keys):
        return see_other(f"{_PATH}?problem=name")
    await visit.services.api_keys.revoke(visit.actor, key_id)
    return see_other(f"{_PATH}?done=revoke")


async def _page(
    visit: Visit,
    *,
    entered: Fields | None = None,
    created: ApiKey | None = None,
    secret: str | None = None,
    notice: Notice = _NONE,
    status: int = 200,
) -> Response:
    defaults = {"name": "", "client": DEFAULT_CLIENT, "days": "90", "networks": ""}
    page = KeysPage(
        keys=[*reversed(await visit.services.api_keys.list(visit.actor))],
        now=visit.services.clock(),
        entered=defaults | dict(entered or {}),
        scopes=list(Scope),
        own_id=visit.actor.caller.id,
        created=created,
        secret=secret,
        notice=notice,
    )
    return visit.page("keys.html", page, status=status)


def _networks(text: str) -> Sequence[Network] | None:
    """Returns the networks of a text; None if one is malformed or there are too many."""
    try:
        networks = [ipaddress.ip_network(part) for part in text.split()]
    except ValueError:
        return None
    return networks if len(networks) <= _MAX_NETWORKS else None
