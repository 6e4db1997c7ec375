"""The audit trail, with the state of its chain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Response

from app.console.dates import parse_day
from app.console.rendering import with_query
from app.console.visits import Fields, PageRoute, SignedInVisit
from app.domain.audit import Action, AuditFilter, AuditRecord
from app.domain.statistics import day_span
from app.services.audit import ChainEnd

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_PATH = "/admin/audit"
_FILTERS = ("action", "key_id", "biz_token", "from", "to")
_PAGE_LENGTH = 50
_MAX_LINE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """A page of the trail, newest first."""

    records: Sequence[tuple[AuditRecord, str | None]]
    filters: Fields
    actions: Sequence[str]
    chain: ChainEnd
    first_url: str | None
    next_url: str | None


@router.get(_PATH)
async def show(visit: SignedInVisit) -> Response:
    """Shows the trail. The address contains all filters."""
    given = visit.request.query_params
    filters = {name: given[name][:_MAX_LINE] for name in _FILTERS if given.get(name)}
    zone = ZoneInfo(visit.services.settings.console.console_time_zone)
    audit, cursor = visit.services.audit, given.get("cursor") or None
    found = await audit.search(
        visit.actor, _filter(filters, zone), filters.get("biz_token"), limit=_PAGE_LENGTH, cursor=cursor
    )
    page = AuditPage(
        records=found.records,
        filters=dict.fromkeys(_FILTERS, "") | filters,
        actions=list(Action),
        chain=await audit.chain_end(visit.actor),
        first_url=with_query(_PATH, **filters) if cursor else None,
        next_url=with_query(_PATH, **filters, cursor=found.next_cursor) if found.next_cursor else None,
    )
    return visit.page("audit.html", page)


def _filter(filters: Mapping[str, str], zone: ZoneInfo) -> AuditFilter:
    action = filters.get("action", "")
    start, end = parse_day(filters.get("from", "")), parse_day(filters.get("to", ""))
    return AuditFilter(
        action=Action(action) if action in set(Action) else None,
        key_id=filters.get("key_id"),
        at_from=day_span(start, zone).start if start else None,
        at_to=day_span(end, zone).end if end else None,
    )
