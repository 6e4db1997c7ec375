"""No personal data in clear: sends two hundred marked values through every path, then searches everywhere."""

import asyncio
import base64
import binascii
import io
import json
import re
import secrets
import signal
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import structlog
from ahocorasick_rs import BytesAhoCorasick
from sqlalchemy import select

from app.config import Settings
from app.domain.api_key import Scope
from app.domain.events import EventFilter
from app.observability import configure_logging
from app.sealing.keyring import Ring
from app.storage import tables
from simulator.people import person_of
from tests.support.api import token
from tests.support.console import visiting
from tests.support.receiver import receiving
from tests.support.servers import S3, script_path
from tests.support.service import Running, actor, environment_of, everything, running, set_up, settings_for
from tests.support.simulator import LiveSimulator

pytestmark = pytest.mark.usefixtures("restored_logging")

SCENARIOS = [
    *(["passed"] * 30),
    *(["failed-2016", "unfinished-1", "http502-x1-passed", "garbage-x1-passed", "cut-x1-passed", "slashes"]),
    *(["throttled-1", "novideo", "quoting"]),
]


def values_of(biz_token: str) -> Iterator[str]:
    person = person_of(biz_token)
    yield from (person.id_card, person.address, person.location, person.id_card[6:14] + person.id_card[14:])
    yield f"{person.name}{person.id_card}"
    yield f"EXTRA-{biz_token}-CANARY"


# Of every metric, also those for admins. Their values are fixed, or names that an operator has chosen.
LABELS = {"method", "route", "status", "le", "action", "result", "step", "state", "disk", "less_than_hours", "account"}


def labels_of(metrics: bytes) -> set[str]:
    """Returns the names of the labels of our metrics."""
    own = [line for line in metrics.decode().splitlines() if line.startswith("faceid_")]
    return {name for line in own for name in re.findall(r'[{,](\w+)="', line)}


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def encodings(value: str) -> Iterator[bytes]:
    """Yields the encodings in which a value may be stored: plain, JSON, URL, hex, and base64 at any offset."""
    plain = value.encode()
    yield from (plain, value.encode("utf-16-le"), json.dumps(value)[1:-1].encode(), quote(value).encode())
    yield from (binascii.hexlify(plain), binascii.hexlify(plain).upper())
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + plain)
        yield encoded[4 if shift else 0 : -4]


class Canaries:
    """Searches for every encoding of every value at once, because one by one takes too long."""

    def __init__(self, values: Sequence[str]) -> None:
        found = [(encoding, place) for place, value in enumerate(values) for encoding in encodings(value)]
        self._places = [place for _, place in found]
        self._search = BytesAhoCorasick([encoding for encoding, _ in found])

    def leaks(self, where: str, content: bytes) -> list[str]:
        """Returns where a value was found, and its number instead of the value."""
        return [
            f"{where}: value {self._places[pattern]}" for pattern, _, _ in self._search.find_matches_as_indexes(content)
        ]


@pytest.mark.parametrize("encoding", [*encodings("000000199001011234")], ids=[str(number) for number in range(9)])
def test_every_encoding_is_found(encoding: bytes) -> None:
    canaries = Canaries(["somebody else", "000000199001011234"])

    assert canaries.leaks("here", b"before" + encoding + b"after") == ["here: value 1"]
    assert canaries.leaks("here", b"before" + encoding[1:] + b"after") == []


async def use_every_path(service: Running, api: httpx.AsyncClient, tokens: list[str]) -> None:
    """Calls the operations with valid and with invalid input."""
    for biz_token in tokens:
        await api.post("/v1/callbacks", json={"BizToken": biz_token, "Extra": f"EXTRA-{biz_token}-CANARY"})
    for biz_token in tokens:
        path, person = f"/v1/verifications/{biz_token}", person_of(biz_token)
        view = (await api.get(path, params={"wait": 30})).json()
        assert view["state"] == "retrieved", biz_token
        if biz_token.startswith("quoting"):
            assert person.name + person.id_card in view["verdict"]["err_msg"]
        identity = (await api.get(f"{path}/identity")).json()
        assert identity["callback_extra"] == f"EXTRA-{biz_token}-CANARY"
        for item in view["media"]:
            assert (await api.get(item["href"], headers={"Range": "bytes=100-4999"})).status_code == 206
        await api.post("/v1/verifications/search", json={"id_card": person.id_card, "name": person.name})
        await api.post("/v1/verifications/search", json={"id_card": {"a": person.id_card}, person.id_card: 1})
        await api.post("/v1/callbacks", json={"BizToken": [person.id_card], "Extra": 1, person.name: 2})
        await api.post("/v1/callbacks", content=f'{{"BizToken": "{person.id_card}'.encode())
        await api.get(f"{path}/{quote(person.address)}")
    await api.get("/v1/verifications", params={"limit": 200})
    await api.delete(f"/v1/verifications/{tokens[0]}")
    for ring in Ring:
        async for _ in service.services.key_rotation.rotate(ring):
            pass
    await service.services.audit.link()
    await service.services.health.count_persons()


async def frames(service: Running) -> bytes:
    """Returns what a stream of all events sends."""
    await service.services.outbox.sequence()
    received = []
    async with service.services.streams.open(actor(), EventFilter(), after=0) as stream:
        async with service.services.database.read() as tx:
            head = await tx.events.head()
        while stream.position < head:
            received.append(await stream.next() or b"")
    return b"".join(received)


async def masked_pages(service: Running, key: str, tokens: list[str]) -> bytes:
    """Returns all pages of the console without a disclosure, after one disclosure whose pages are left out."""
    # The verdict has Tencent's messages, like that of the API, and those of this scenario quote the person.
    paths = [f"/admin/verifications/{biz_token}" for biz_token in tokens if not biz_token.startswith("quoting")]
    async with visiting(service, key) as client:
        wanted = {"identity": "on", "pictures": "on", "recordings": "on", "purpose": "canary"}
        shown = await client.get((await client.post(f"{paths[1]}/reveal", data=wanted)).headers["Location"])
        assert person_of(tokens[1]).id_card in shown.text
        for place in re.findall(r'src="(/admin/media/[^"]+)"', shown.text):
            assert (await client.get(place, headers={"Range": "bytes=100-4999"})).status_code == 206
        found = await client.post("/admin/verifications/search", data={"id_card": person_of(tokens[1]).id_card})
        others = ["/admin", "/admin/verifications", "/admin/audit", "/admin/health", "/admin/settings"]
        return found.content + b"".join([(await client.get(path)).content for path in (*paths, *others)])


async def delivered(api: httpx.AsyncClient, endpoint_id: str, least: int) -> bytes:
    """Returns the log of deliveries when at least so many have arrived."""
    async with asyncio.timeout(30):
        while True:
            path = f"/v1/webhook-endpoints/{endpoint_id}/deliveries"
            page = await api.get(path, params={"state": "delivered", "limit": 200})
            if len(page.json()["items"]) >= least:
                return page.content
            await asyncio.sleep(0.1)


async def dump(service: Running) -> bytes:
    async with service.services.database.read() as tx:
        rows = [
            tuple(row) for table in tables.metadata.sorted_tables for row in await tx.connection.execute(select(table))
        ]
    return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row)


@dataclass
class BucketStore:
    """A prefix of the S3 server's bucket."""

    server: S3
    prefix: str

    def objects(self) -> dict[str, bytes]:
        store = self.server.store()
        paths = [meta["path"] for page in store.list(self.prefix) for meta in page]
        return {f"media/{path}": bytes(store.get(path).bytes()) for path in paths}


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> BucketStore | None:
    if request.param == "folder":
        return None
    return BucketStore(request.getfixturevalue("s3_server"), f"canary-{secrets.token_hex(4)}")


# The database and the media store are independent of each other, so two combinations are enough.
@pytest.mark.parametrize(("database_url", "bucket"), [("sqlite", "folder"), ("postgres", "bucket")], indirect=True)
async def test_marked_values_are_found_nowhere_outside_the_answers(
    settings: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str], bucket: BucketStore | None
) -> None:
    if bucket:
        settings = settings_for(
            tmp_path,
            settings.faceid.faceid_endpoint,
            database_url=settings.database.database_url,
            **bucket.server.settings(bucket.prefix),
        )
    stream = io.StringIO()
    with redirect_stderr(stream):
        configure_logging("DEBUG")
    # Otherwise the loggers of later tests keep this configuration.
    structlog.configure(cache_logger_on_first_use=False)
    tokens = [token(scenario) for scenario in SCENARIOS]
    values = [value for biz_token in tokens for value in values_of(biz_token)]
    async with running(settings) as service, receiving() as receiver:
        async with service.client(await service.key(*everything(), Scope.ADMIN)) as api:
            endpoint = (await api.post("/v1/webhook-endpoints", json={"url": receiver.url()})).json()
            await use_every_path(service, api, tokens)
            pages = await masked_pages(service, await service.key(Scope.ADMIN), tokens)
            deliveries = await delivered(api, endpoint["id"], len(tokens))
            metrics = (await api.get("/metrics")).content
            rows = await dump(service)
            events = await frames(service) + (await api.get("/v1/events", params={"limit": 500})).content
        files = files_below(tmp_path) | (bucket.objects() if bucket else {})
    output = capfd.readouterr()

    assert len(set(values)) >= 200
    canaries = Canaries(values)
    found = canaries.leaks("metrics", metrics) + canaries.leaks("rows", rows) + canaries.leaks("events", events)
    for message in receiver.messages:
        found += canaries.leaks("webhooks", message.body + str(message.headers).encode())
    found += canaries.leaks("deliveries", deliveries)
    found += canaries.leaks("logs", (output.out + output.err + stream.getvalue()).encode())
    found += canaries.leaks("pages", pages)
    for name, content in files.items():
        found += canaries.leaks(Path(name).name, content)
    assert found == []
    assert labels_of(metrics) == LABELS
    assert not any(biz_token.encode() in metrics for biz_token in tokens)
    assert events.count(b'"verification.retrieved"') == 2 * len(tokens)
    assert stream.getvalue().count("\n") > 500
    assert any("media" in name for name in files)
    assert not any(content.startswith((b"\xff\xd8\xff", b"\x00\x00\x00")) for content in files.values())


@asynccontextmanager
async def stalling(faceid: LiveSimulator, answered_bytes: int) -> AsyncIterator[str]:
    """Yields the address of a simulator whose answers stop after so many bytes and never end."""
    is_closing = asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, request = await asyncio.open_connection("127.0.0.1", faceid.port)
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            request.write(head + await reader.readexactly(length))
            # The worker also asks for the time, without a body. That answer is short and complete.
            writer.write(await (upstream.readexactly(answered_bytes) if length else upstream.read(answered_bytes)))
            await is_closing.wait()
        for each in (request, writer):
            each.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        is_closing.set()


async def test_worker_killed_during_a_download_leaves_no_readable_data(tmp_path: Path, faceid: LiveSimulator) -> None:
    tokens = [token() for _ in range(8)]
    values = [value for biz_token in tokens for value in values_of(biz_token)]
    async with stalling(faceid, answered_bytes=300_000) as url:
        settings = settings_for(tmp_path, url, media_url=(tmp_path / "media").as_uri())
        await set_up(settings)
        async with running(settings, with_worker=False) as service:
            async with service.client(await service.key(*everything())) as api:
                for biz_token in tokens:
                    await api.post("/v1/callbacks", json={"BizToken": biz_token, "Extra": f"EXTRA-{biz_token}-CANARY"})
            command = (script_path("faceid-results"), "worker")
            worker = await asyncio.create_subprocess_exec(*command, env=environment_of(settings), stderr=PIPE)
            spool_files: list[bytes] = []
            async with asyncio.timeout(20):
                while len(spool_files) < len(tokens):
                    await asyncio.sleep(0.05)
                    spool_files = [
                        content for content in files_below(tmp_path / "media").values() if len(content) > 20_000
                    ]
            worker.kill()
            _, errors = await worker.communicate()
            files = files_below(tmp_path)

    canaries = Canaries(values)
    found = canaries.leaks("logs", errors)
    for name, content in files.items():
        found += canaries.leaks(Path(name).name, content)
    assert worker.returncode == -signal.SIGKILL
    assert found == []
    assert not any(b"\xff\xd8\xff" in content[:100] for content in spool_files)
