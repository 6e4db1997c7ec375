"""The list of verifications, and the search for a person."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Response
from starlette.responses import StreamingResponse

from app.console.dates import parse_day
from app.console.language import marked as _
from app.console.rendering import Link, href, with_query
from app.console.visits import Fields, PageRoute, SignedInVisit, Visit, fields_of, see_other
from app.domain.detection import Outcome
from app.domain.listing import TimeField, TimeRange, VerificationFilter
from app.domain.statistics import day_span
from app.domain.verification import BIZ_TOKEN_PATTERN, Result, State
from app.errors import ConflictError, GoneError, InvalidRequestError, NotFoundError
from app.services.export import new_table
from app.services.read import PersonQuery
from app.tabular import MEDIA_TYPES, Format

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_PATH = "/admin/verifications"
_PAGE_LENGTH = 50
_MAX_LINE = 256
# An ID number of the mainland. It must not be in an address, which browsers and proxies remember.
_ID_NUMBER = re.compile(r"\d{15}|\d{17}[\dXx]")
_CODE = re.compile(r"-?\d{1,9}")
_FILTERS = ("standing", "subject_ref", "rule_id", "err_code", "client", "by", "from", "to", "order")
_STANDINGS: Mapping[str, tuple[tuple[State, ...], tuple[Outcome, ...]]] = {
    "passed": ((), (Outcome.PASSED,)),
    "not_passed": ((), (Outcome.FAILED,)),
    "unfinished": ((), (Outcome.UNFINISHED,)),
    "pending": ((State.PENDING,), ()),
    "failed": ((State.FAILED,), ()),
    "expired": ((State.EXPIRED,), ()),
    "erased": ((State.ERASED,), ()),
}
_TABS = (
    ("", _("All")),
    ("passed", _("Passed")),
    ("not_passed", _("Not passed")),
    ("unfinished", _("Not finished")),
    ("pending", _("To be retrieved")),
    ("failed", _("Retrieval failed")),
    ("expired", _("Expired")),
    ("erased", _("Erased")),
)
_NOTICES = {"number": _("An ID number must not be in an address. Use “Find a person” instead.")}
_SPANS = ((1, _("Today")), (7, _("7 days")), (30, _("30 days")))


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPage:
    """A page of the list: the filters in words and as links, and the rows.

    `filters` are the values of the form. `exports` are the names of formats and their addresses.
    `is_filtered`: rows may be hidden by a filter. `notice` is about the input.
    """

    tabs: Sequence[Link]
    spans: Sequence[Link]
    filters: Fields
    is_filtered: bool
    rows: Sequence[Result]
    exports: Sequence[tuple[str, str]]
    first_url: str | None
    next_url: str | None
    is_admin: bool
    notice: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPage:
    """The verifications of one person, at most 50."""

    rows: Sequence[Result]
    has_more: bool


@router.get(_PATH)
async def show_list(visit: SignedInVisit) -> Response:
    """Shows the list. The address contains all filters, so it can be kept and shared."""
    given = {name: value[:_MAX_LINE] for name, value in visit.request.query_params.items() if value}
    text = given.get("q", "").strip()
    if _ID_NUMBER.fullmatch(text):
        return see_other(f"{_PATH}?notice=number")
    if text:
        if url := await _address_of(visit, text):
            return see_other(url)
        given["subject_ref"] = text
    return await _list(visit, given, _NOTICES.get(given.get("notice", "")))


@router.get(f"{_PATH}/export")
async def export(visit: SignedInVisit) -> Response:
    """Exports the list with the filters of the address, masked."""
    given, service = visit.request.query_params, visit.services.export
    wanted = _filter({name: given[name][:_MAX_LINE] for name in _FILTERS if given.get(name)}, zone_of(visit))
    of = given.get("format", "")
    if of not in set(Format):
        raise InvalidRequestError("The format of the export is unknown.")
    table = new_table(Format(of), is_revealed=False)
    pieces = service.write(visit.actor, wanted, table, is_revealed=False)
    # An error in the first piece can still be answered by a page.
    first = await anext(pieces)
    headers = {"Content-Disposition": f'attachment; filename="{service.file_name(Format(of))}"'}
    return StreamingResponse(_continued(first, pieces), media_type=MEDIA_TYPES[Format(of)], headers=headers)


async def _continued(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece


@router.post(f"{_PATH}/search")
async def find_person(visit: SignedInVisit) -> Response:
    """Finds a person by the exact ID number. Audited. The number is in no address."""
    fields = await fields_of(visit.request)
    if not 0 < len(fields.get("id_card", "")) <= _MAX_LINE:
        raise InvalidRequestError("The ID number is missing.")
    person = PersonQuery(fields["id_card"], fields.get("name", "")[:_MAX_LINE] or None)
    wanted = VerificationFilter(client=fields.get("client") or None)
    found = await visit.services.read.search_person(visit.actor, wanted, person, limit=_PAGE_LENGTH, cursor=None)
    page = FoundPage(rows=found.results, has_more=found.next_cursor is not None)
    return visit.page("found.html", page, place=_PATH)


async def _address_of(visit: Visit, biz_token: str) -> str | None:
    """Returns the address of the verification with this token; None if the visitor can see none."""
    if not re.fullmatch(BIZ_TOKEN_PATTERN, biz_token):
        return None
    try:
        known = (await visit.services.read.get(visit.actor, biz_token)).verification
    except NotFoundError:
        return None
    except (ConflictError, GoneError):
        return with_query(f"{_PATH}/{biz_token}")
    return href(known, visit.actor.caller)


async def _list(visit: Visit, given: Fields, notice: str | None = None) -> Response:
    filters = {name: given[name] for name in _FILTERS if given.get(name)}
    zone = zone_of(visit)
    cursor = given.get("cursor")
    found = await visit.services.read.list(visit.actor, _filter(filters, zone), limit=_PAGE_LENGTH, cursor=cursor)
    next_url = with_query(_PATH, **filters, cursor=found.next_cursor) if found.next_cursor else None
    page = ListPage(
        tabs=[
            Link(
                url=with_query(_PATH, **filters | {"standing": name}),
                word=word,
                is_current=filters.get("standing", "") == name,
            )
            for name, word in _TABS
        ],
        spans=spans_of(_PATH, filters, visit.services.clock().astimezone(zone).date()),
        filters=dict.fromkeys(_FILTERS, "") | filters,
        is_filtered=bool(filters),
        rows=found.results,
        exports=[(of.upper(), with_query(f"{_PATH}/export", **filters, format=of)) for of in (Format.XLSX, Format.CSV)],
        first_url=with_query(_PATH, **filters) if cursor else None,
        next_url=next_url,
        is_admin=visit.actor.caller.visible_client is None,
        notice=notice,
    )
    return visit.page("list.html", page)


def zone_of(visit: Visit) -> ZoneInfo:
    """Returns the time zone of the pages."""
    return ZoneInfo(visit.services.settings.console.console_time_zone)


def spans_of(path: str, filters: Fields, today: date) -> Sequence[Link]:
    """Returns the last days as links to a list."""
    links = []
    for count, word in _SPANS:
        start = (today - timedelta(days=count - 1)).isoformat()
        is_current = filters.get("from") == start and "to" not in filters
        changed = {name: value for name, value in filters.items() if name not in {"from", "to"}}
        url = with_query(path, **changed if is_current else changed | {"from": start})
        links.append(Link(url=url, word=word, is_current=is_current))
    return links


def choices_of(path: str, filters: dict[str, str], name: str, words: Mapping[str, str]) -> Sequence[Link]:
    """Returns the values of a filter as links to a list. The one that the list has leads back to all."""
    return [
        Link(
            url=with_query(path, **filters | {name: "" if filters.get(name) == value else value}),
            word=word,
            is_current=filters.get(name) == value,
        )
        for value, word in words.items()
    ]


def _filter(filters: Fields, zone: ZoneInfo) -> VerificationFilter:
    """Returns the filter of the list. Both days of a range are part of it."""
    state, outcome = _STANDINGS.get(filters.get("standing", ""), ((), ()))
    code, by = filters.get("err_code", ""), filters.get("by", "")
    start, end = parse_day(filters.get("from", "")), parse_day(filters.get("to", ""))
    within = TimeRange(
        field=TimeField(by) if by in set(TimeField) else TimeField.UPDATED,
        start=day_span(start, zone).start if start else None,
        end=day_span(end, zone).end if end else None,
    )
    return VerificationFilter(
        client=filters.get("client"),
        state=state,
        outcome=outcome,
        err_code=(int(code),) if _CODE.fullmatch(code) else (),
        rule_id=filters.get("rule_id"),
        subject_ref=filters.get("subject_ref"),
        within=within if start or end else None,
        is_ascending=filters.get("order") == "asc",
    )
