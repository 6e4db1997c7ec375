"""The cost of a page of a list in a small and in a large database, which must be the same."""

import asyncio
import http.client
import json
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain, repeat
from pathlib import Path
from urllib.parse import urlencode

import asyncpg
from pydantic import SecretStr
from sqlalchemy import make_url

from app.config import Settings
from app.domain.api_key import Scope
from app.domain.detection import Outcome
from app.domain.listing import Position, TimeField, TimeRange, VerificationFilter, encode_cursor
from app.domain.verification import State, Verification
from app.factory import Services, open_services
from app.sealing.keyring import KeyRing
from benchmarks import harness, rows
from benchmarks.figures import Line
from tests.support.databases import migrate
from tests.support.postgres import durable_postgres
from tests.support.service import UNLIMITED, actor, settings_for

_MOST = 1.2
_DEEP = (0.1, 0.5, 0.99)
# Of each list at each depth, close to each other.
_PAGES = 5
# Below the rate limit of a key.
_SEARCHES_PER_KEY = 50
_SEARCHING_KEYS = 20
ID_CARD, _NAME = "110101199001011237", "样甲"
_URL = "/v1/verifications"
ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One kind of list: whose key requests it, the filter, and the depth of the page. `is_search`: by ID number."""

    what: str
    key: str = rows.BIG
    wanted: VerificationFilter = field(default_factory=VerificationFilter)
    depth: float = 0
    is_search: bool = False
    is_constant: bool = True


@dataclass(frozen=True, slots=True)
class Size:
    """A database of one size, its API, and the keys of its clients."""

    filled: rows.Filled
    port: int
    keys: Mapping[str, str]
    search_keys: Iterator[str]


def at(part: float) -> datetime:
    """Returns the instant when this part of all rows had been received."""
    return rows.BEGIN + part * rows.SPAN


def _received(start: datetime, end: datetime | None = None) -> VerificationFilter:
    return VerificationFilter(within=TimeRange(field=TimeField.RECEIVED, start=start, end=end))


def _updated(*, is_ascending: bool) -> VerificationFilter:
    within = TimeRange(field=TimeField.UPDATED, start=at(0.25), end=at(0.75))
    return VerificationFilter(within=within, is_ascending=is_ascending)


def kinds() -> Sequence[Listed]:
    """Returns all lists to measure."""
    recent = _received(at(0.94))
    narrow = _received(at(0.30), at(0.32))
    wide = _received(at(0.25), at(0.75))
    rare = VerificationFilter(outcome=(Outcome.UNFINISHED,), rule_id=rows.RULE)
    failed = VerificationFilter(state=(State.FAILED,))
    both = (rows.BIG, ADMIN)
    filters = {
        "state": failed,
        "outcome": VerificationFilter(outcome=(Outcome.FAILED,)),
        "rule": VerificationFilter(rule_id=rows.RULE),
        "rare rule": VerificationFilter(rule_id=rows.RARE_RULE),
        "rare subject": VerificationFilter(subject_ref=rows.RARE_SUBJECT),
        "rare outcome and rule": rare,
        "received lately": recent,
        "received in an old day or three": narrow,
        "received in half of the time": wide,
        "updated in half of the time": _updated(is_ascending=False),
        "updated in half of the time, oldest first": _updated(is_ascending=True),
    }
    return [
        *(Listed(what="all", key=key, depth=depth) for key in both for depth in (0, *_DEEP)),
        *(Listed(what="all", key=rows.SMALL, depth=depth) for depth in (0, 0.5)),
        *(Listed(what=what, key=key, wanted=wanted) for what, wanted in filters.items() for key in both),
        *(Listed(what=what, key=rows.BIG, wanted=filters[what], depth=0.5) for what in _DEEP_FILTERS),
        Listed(what="erased, the oldest fifth", key=ADMIN, wanted=VerificationFilter(state=(State.ERASED,))),
        Listed(what="rare outcome in half of the time", wanted=replace(wide, outcome=(Outcome.UNFINISHED,))),
        Listed(what="rare rule in half of the time", wanted=replace(wide, rule_id=rows.RARE_RULE)),
        Listed(what="rule in half of the time", key=ADMIN, wanted=replace(wide, rule_id=rows.RULE), is_constant=False),
        *(Listed(what="search by ID number", is_search=True, depth=depth) for depth in (0, 0.5)),
    ]


_DEEP_FILTERS = ("state", "outcome", "rule", "rare subject", "received in half of the time")


async def lines(folder: Path, *, sizes: tuple[int, int], rare: int, limit: int, rounds: int) -> AsyncIterator[Line]:
    """Compares the large database with the small one, both on one Postgres that syncs."""
    # The server runs as another user.
    await asyncio.to_thread(folder.chmod, 0o711)
    async with durable_postgres(folder) as postgres, AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(opened_size(folder, postgres.url, size, rare)) for size in sizes]
        for line in await measured(opened, limit=limit, rounds=rounds):
            yield line
        for line in await counted(opened, rounds=rounds):
            yield line


async def measured(sizes: Sequence[Size], *, limit: int, rounds: int) -> list[Line]:
    """Returns a line for each kind of list: the median of the last size beside that of the first."""
    for size in sizes:
        await _complete(size.filled, limit)
    took = await asyncio.to_thread(_ask_all, sizes, limit, rounds)
    peer = f"{sizes[0].filled.rows:,} rows"
    return [
        Line.at_most(
            f"{_title(listed)}, {sizes[1].filled.rows:,} rows",
            "ms",
            statistics.median(took[listed, 1]),
            statistics.median(took[listed, 0]),
            peer,
            most=_MOST if listed.is_constant else None,
        )
        for listed in kinds()
    ]


async def counted(sizes: Sequence[Size], *, rounds: int) -> list[Line]:
    """Returns a line for each kind of statistics, of the last 30 days: the last size beside the first."""
    found = []
    for by in ("day,outcome", "outcome", "client,rule_id,state,outcome"):
        for key in (rows.BIG, ADMIN):
            took = await asyncio.to_thread(_ask_counts, sizes, key, by, rounds)
            small, large = (statistics.median(took[number]) for number in (0, 1))
            peer = f"{sizes[0].filled.rows:,} rows"
            what = f"statistics by {key}: {by}, {sizes[1].filled.rows:,} rows"
            found.append(Line.at_most(what, "ms", large, small, peer, most=_MOST))
    return found


@asynccontextmanager
async def opened_size(folder: Path, url: str, count: int, rare: int) -> AsyncIterator[Size]:
    """Fills a database of so many rows on that server, and serves it."""
    async with filled_database(folder, url, count, rare) as (settings, filled):
        services = filled.services
        keys = {client: await key_of(services, client) for client in (rows.BIG, rows.SMALL, ADMIN)}
        searching = [await key_of(services, rows.BIG) for _ in range(_SEARCHING_KEYS)]
        shared = chain.from_iterable(repeat(key, _SEARCHES_PER_KEY) for key in searching)
        async with harness.serving(settings, "--no-worker") as server:
            yield Size(filled, server.port, keys, shared)


@asynccontextmanager
async def filled_database(
    folder: Path, url: str, count: int, rare: int, *, begin: datetime = rows.BEGIN
) -> AsyncIterator[tuple[Settings, rows.Filled]]:
    """Fills a database of so many rows on that server, the first of this instant; yields the settings for it."""
    home = folder / f"rows-{count}"
    await asyncio.to_thread(home.mkdir)
    await _execute(url, f"CREATE DATABASE rows_{count}")
    address = make_url(url).set(database=f"rows_{count}").render_as_string(hide_password=False)
    settings = settings_for(
        home, "http://127.0.0.1:1", database_url=SecretStr(address), media_url=(home / "media").as_uri(), **UNLIMITED
    )
    KeyRing.create(settings.keyring.keyring_path)
    await migrate(address)
    async with open_services(settings) as services:
        digests = [services.cipher.find_by(rows.BIG, ID_CARD, name)[1][0] for name in (None, _NAME)]
        await rows.fill(make_url(address), count, rare, digests, begin=begin)
        async with services.database.read() as tx:
            newest = await tx.verifications.list_newest_sealed(limit=1)
        # Every start checks whether the key of this row can be unwrapped.
        await rows.complete(services, newest)
        yield settings, rows.Filled(services, count, rare)


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def key_of(services: Services, client: str) -> str:
    """Creates an API key of a client, or of an administrator."""
    scope = Scope.ADMIN if client == ADMIN else Scope.RESULTS_READ
    _, text = await services.api_keys.create(actor(), "bench", [scope], client=client, valid_for=timedelta(days=1))
    return text


async def _complete(filled: rows.Filled, limit: int) -> None:
    """Gives the rows that will be read real contents."""
    found: dict[int, Verification] = {}
    for listed in kinds():
        client = None if listed.key == ADMIN else listed.key
        person = filled.services.cipher.find_by(rows.BIG, ID_CARD, None) if listed.is_search else None
        for after in _places(listed, filled):
            async with filled.services.database.read() as tx:
                wanted = replace(listed.wanted, client=client)
                page = await tx.verifications.search(wanted, limit=limit, after=after, person=person)
            if len(page) < limit:
                raise RuntimeError(f"There is no full page of {_title(listed)}.")
            found |= {verification.id: verification for verification in page}
    await rows.complete(filled.services, found.values())


def _places(listed: Listed, filled: rows.Filled) -> Sequence[Position | None]:
    """Returns the positions of the pages, a two-thousandth of the list apart."""
    if not listed.depth:
        return [None]
    depths = [listed.depth + number / 2000 for number in range(_PAGES)]
    within = listed.wanted.within
    if within is None or listed.is_search:
        return [Position(filled.id_at(depth)) for depth in depths]
    begin, end = within.start or at(0), within.end or at(1)
    return [Position(1, end - depth * (end - begin)) for depth in depths]


def _ask_all(sizes: Sequence[Size], limit: int, rounds: int) -> Mapping[tuple[Listed, int], Sequence[float]]:
    """Returns the milliseconds of each page. The sizes take turns at each page, one request at a time."""
    took: defaultdict[tuple[Listed, int], list[float]] = defaultdict(list)
    connections = [http.client.HTTPConnection("127.0.0.1", size.port, timeout=60) for size in sizes]
    for number_of_round in range(-1, rounds):
        for listed in kinds():
            for turn in range(_PAGES):
                for number in sorted(range(len(sizes)), reverse=turn % 2 == 1):
                    ms = _ask(connections[number], sizes[number], listed, turn, limit)
                    # The first round opens connections and builds statements.
                    if number_of_round >= 0:
                        took[listed, number].append(ms)
    for connection in connections:
        connection.close()
    return took


def _ask_counts(sizes: Sequence[Size], key: str, by: str, rounds: int) -> Mapping[int, Sequence[float]]:
    """Returns the milliseconds of each request to each size. The sizes take turns."""
    took: defaultdict[int, list[float]] = defaultdict(list)
    connections = [http.client.HTTPConnection("127.0.0.1", size.port, timeout=60) for size in sizes]
    query = urlencode({"by": by, "to": f"{at(1):%Y-%m-%d}"})
    for turn in range((rounds + 1) * _PAGES):
        for number in sorted(range(len(sizes)), reverse=turn % 2 == 1):
            start = time.perf_counter()
            answer = _answer(connections[number], "GET", f"/v1/stats?{query}", None, sizes[number].keys[key])
            page = answer.read()
            ms = (time.perf_counter() - start) * 1000
            if not json.loads(page).get("items"):
                raise RuntimeError(f"Statistics by {by}: {answer.status} without counts.")
            # The first round opens connections and builds statements.
            if turn >= _PAGES:
                took[number].append(ms)
    for connection in connections:
        connection.close()
    return took


def _ask(connection: http.client.HTTPConnection, size: Size, listed: Listed, turn: int, limit: int) -> float:
    places = _places(listed, size.filled)
    place = places[turn % len(places)]
    key = next(size.search_keys) if listed.is_search else size.keys[listed.key]
    cursor = {"cursor": encode_cursor(place, listed.wanted.order)} if place else {}
    method, url, body = _request(listed, {"limit": limit, **cursor})
    start = time.perf_counter()
    answer = _answer(connection, method, url, body, key)
    page = answer.read()
    ms = (time.perf_counter() - start) * 1000
    if len(json.loads(page).get("items", ())) != limit:
        raise RuntimeError(f"{_title(listed)}: {answer.status} without a full page.")
    return ms


def _answer(
    connection: http.client.HTTPConnection, method: str, url: str, body: str | None, key: str
) -> http.client.HTTPResponse:
    """Requests a page, over a new connection if the server closed the idle one while the other size was slow."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request(method, url, body, headers)
    try:
        return connection.getresponse()
    except http.client.RemoteDisconnected:
        connection.close()
        connection.request(method, url, body, headers)
        return connection.getresponse()


def _request(listed: Listed, page: Mapping[str, object]) -> tuple[str, str, str | None]:
    wanted = listed.wanted
    values = {name: getattr(wanted, name) for name in ("state", "outcome", "rule_id", "subject_ref")}
    values["order"] = "asc" if wanted.is_ascending else None
    if within := wanted.within:
        name = within.field.removesuffix("_at")
        values |= {f"{name}_{end}": at and at.isoformat() for end, at in (("from", within.start), ("to", within.end))}
    shown = {name: value for name, value in values.items() if value} | dict(page)
    if listed.is_search:
        return "POST", f"{_URL}/search", json.dumps({**shown, "id_card": ID_CARD})
    return "GET", f"{_URL}?{urlencode(shown, doseq=True)}", None


def _title(listed: Listed) -> str:
    depth = f", {listed.depth:.0%} deep" if listed.depth else ""
    return f"list by {listed.key}: {listed.what}{depth}"
