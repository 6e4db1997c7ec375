"""What a page of a list costs in a small database and in a large one: the same, or it would grow with the years."""

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
from app.domain.access import Scope
from app.domain.detection import Outcome
from app.domain.verification import Filter, Place, State, Verification
from app.factory import Services, open_services
from app.sealing.keyring import KeyRing
from app.services.cursors import cursor_of
from app.storage import schema
from app.storage.database import Database
from app.storage.tables import columns_of
from app.storage.verifications import VerificationStore
from benchmarks import rows, stage
from benchmarks.figures import Line
from tests.support.postgres import durable_postgres
from tests.support.service import settings_for

_MOST = 1.2
_DEEP = (0.1, 0.5, 0.99)
_PAGES = 5  # of each list at each depth, close to each other
_SEARCHES_PER_KEY = 50  # fewer than a key may make at once
_SEARCHING_KEYS = 20
_ID_CARD, _NAME = "110101199001011237", "样甲"
_URL = "/v1/verifications"
_ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One kind of list, of which client's key, and how deep the page is; `is_search` by the person's number."""

    what: str
    key: str = rows.BIG
    wanted: Filter = field(default_factory=Filter)
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
    """The instant when this part of all rows had come."""
    return rows.BEGIN + part * rows.SPAN


def kinds() -> Sequence[Listed]:
    """All lists that are measured."""
    recent = Filter(received_from=at(0.94))
    narrow = Filter(received_from=at(0.30), received_to=at(0.32))
    wide = Filter(received_from=at(0.25), received_to=at(0.75))
    rare = Filter(outcome=Outcome.UNFINISHED, rule_id=rows.RULE)
    failed = Filter(state=State.FAILED)
    both = (rows.BIG, _ADMIN)
    filters = {
        "state": failed,
        "outcome": Filter(outcome=Outcome.FAILED),
        "rule": Filter(rule_id=rows.RULE),
        "rare rule": Filter(rule_id=rows.RARE_RULE),
        "rare subject": Filter(subject_ref=rows.RARE_SUBJECT),
        "rare outcome and rule": rare,
        "received lately": recent,
        "received in an old day or three": narrow,
        "received in half of the time": wide,
    }
    return [
        *(Listed(what="all", key=key, depth=depth) for key in both for depth in (0, *_DEEP)),
        *(Listed(what="all", key=rows.SMALL, depth=depth) for depth in (0, 0.5)),
        *(Listed(what=what, key=key, wanted=wanted) for what, wanted in filters.items() for key in both),
        *(Listed(what=what, key=rows.BIG, wanted=filters[what], depth=0.5) for what in _DEEP_FILTERS),
        Listed(what="erased, the oldest fifth", key=_ADMIN, wanted=Filter(state=State.ERASED)),
        Listed(what="rare outcome in half of the time", wanted=replace(wide, outcome=Outcome.UNFINISHED)),
        Listed(what="rare rule in half of the time", wanted=replace(wide, rule_id=rows.RARE_RULE)),
        Listed(what="rule in half of the time", key=_ADMIN, wanted=replace(wide, rule_id=rows.RULE), is_constant=False),
        *(Listed(what="search by ID number", is_search=True, depth=depth) for depth in (0, 0.5)),
    ]


_DEEP_FILTERS = ("state", "outcome", "rule", "rare subject", "received in half of the time")


async def lines(folder: Path, *, sizes: tuple[int, int], rare: int, limit: int, rounds: int) -> AsyncIterator[Line]:
    """The large database beside the small one, both on one Postgres that waits for the disk."""
    await asyncio.to_thread(folder.chmod, 0o711)  # the server runs as another user
    async with durable_postgres(folder) as postgres, AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(opened_size(folder, postgres.url, size, rare)) for size in sizes]
        for line in await measured(opened, limit=limit, rounds=rounds):
            yield line


async def measured(sizes: Sequence[Size], *, limit: int, rounds: int) -> list[Line]:
    """A line for each kind of list: the median of the last size beside that of the first."""
    for size in sizes:
        await _dress(size.filled, limit)
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


@asynccontextmanager
async def opened_size(folder: Path, url: str, count: int, rare: int) -> AsyncIterator[Size]:
    """A database of so many rows on that server, behind an API."""
    home = folder / f"rows-{count}"
    await asyncio.to_thread(home.mkdir)
    await _execute(url, f"CREATE DATABASE rows_{count}")
    address = make_url(url).set(database=f"rows_{count}").render_as_string(hide_password=False)
    settings = settings_for(
        home, "http://127.0.0.1:1", database_url=SecretStr(address), media_url=(home / "media").as_uri()
    )
    KeyRing.create(settings.keyring_path)
    await _migrate(settings)
    async with open_services(settings) as services:
        digests = [services.vault.find_by(rows.BIG, _ID_CARD, name)[1][0] for name in (None, _NAME)]
        await rows.fill(make_url(address), count, rare, digests)
        async with services.database.read() as tx:
            newest = await VerificationStore().newest_sealed(tx)
        await rows.dress(services, [newest] if newest else [])  # every start looks whether it can be opened
        keys = {client: await _key(services, client) for client in (rows.BIG, rows.SMALL, _ADMIN)}
        searching = [await _key(services, rows.BIG) for _ in range(_SEARCHING_KEYS)]
        shared = chain.from_iterable(repeat(key, _SEARCHES_PER_KEY) for key in searching)
        async with stage.serving(settings, "--no-worker") as server:
            yield Size(rows.Filled(services, count, rare), server.port, keys, shared)


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _migrate(settings: Settings) -> None:
    database = Database(settings)
    await schema.migrate(database)
    await database.aclose()


async def _key(services: Services, client: str) -> str:
    scope = Scope.ADMIN if client == _ADMIN else Scope.RESULTS_READ
    _, text = await services.access.create("bench", [scope], client=client, valid_for=timedelta(days=1))
    return text


async def _dress(filled: rows.Filled, limit: int) -> None:
    """What will be read is made real."""
    found: dict[int, Verification] = {}
    for listed in kinds():
        client = None if listed.key == _ADMIN else listed.key
        index = filled.services.vault.find_by(rows.BIG, _ID_CARD, None) if listed.is_search else None
        for before in _places(listed, filled):
            async with filled.services.database.read() as tx:
                wanted = replace(listed.wanted, client=client)
                page = await VerificationStore().search(tx, wanted, limit=limit, before=before, index=index)
            if len(page) < limit:
                raise RuntimeError(f"There is no full page of {_title(listed)}.")
            found |= {verification.id: verification for verification in page}
    await rows.dress(filled.services, found.values())


def _places(listed: Listed, filled: rows.Filled) -> Sequence[Place | None]:
    """Where the pages begin, a two-thousandth of the list apart."""
    if not listed.depth:
        return [None]
    depths = [listed.depth + number / 2000 for number in range(_PAGES)]
    if not listed.wanted.is_by_receipt:
        return [Place(filled.id_at(depth)) for depth in depths]
    begin, end = listed.wanted.received_from or at(0), listed.wanted.received_to or at(1)
    return [Place(1, end - depth * (end - begin)) for depth in depths]


def _ask_all(sizes: Sequence[Size], limit: int, rounds: int) -> Mapping[tuple[Listed, int], Sequence[float]]:
    """How long each page took, in ms: the sizes take turns at each page, one request at a time."""
    took: defaultdict[tuple[Listed, int], list[float]] = defaultdict(list)
    connections = [http.client.HTTPConnection("127.0.0.1", size.port, timeout=60) for size in sizes]
    for asked in range(-1, rounds):
        for listed in kinds():
            for turn in range(_PAGES):
                for number in sorted(range(len(sizes)), reverse=turn % 2 == 1):
                    ms = _ask(connections[number], sizes[number], listed, turn, limit)
                    if asked >= 0:  # the first round opens connections and makes statements
                        took[listed, number].append(ms)
    for connection in connections:
        connection.close()
    return took


def _ask(connection: http.client.HTTPConnection, size: Size, listed: Listed, turn: int, limit: int) -> float:
    places = _places(listed, size.filled)
    place = places[turn % len(places)]
    key = next(size.search_keys) if listed.is_search else size.keys[listed.key]
    method, url, body = _request(listed, {"limit": limit} | ({"cursor": cursor_of(place)} if place else {}))
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
    """Over a new connection where the server has closed the old one, which was idle while the other size was slow."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request(method, url, body, headers)
    try:
        return connection.getresponse()
    except http.client.RemoteDisconnected:
        connection.close()
        connection.request(method, url, body, headers)
        return connection.getresponse()


def _request(listed: Listed, page: Mapping[str, object]) -> tuple[str, str, str | None]:
    wanted = {name: value for name, value in columns_of(listed.wanted).items() if value is not None}
    if listed.is_search:
        return "POST", f"{_URL}/search", json.dumps({**wanted, **page, "id_card": _ID_CARD})
    shown = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in wanted.items()}
    return "GET", f"{_URL}?{urlencode({**shown, **page})}", None


def _title(listed: Listed) -> str:
    depth = f", {listed.depth:.0%} deep" if listed.depth else ""
    return f"list by {listed.key}: {listed.what}{depth}"
