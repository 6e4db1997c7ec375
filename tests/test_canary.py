"""Nothing of a person leaves the seals: two hundred marked values through every path, and then a search everywhere."""

import asyncio
import base64
import binascii
import io
import json
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
from obstore.store import S3Store
from pydantic import SecretStr
from sqlalchemy import select

from app.config import Settings
from app.domain.access import Scope
from app.factory import rotation
from app.observability import configure_logging
from app.sealing.keyring import Ring
from app.storage import tables
from simulator.people import person_of
from tests.support.api import token
from tests.support.servers import S3, script_path
from tests.support.service import Running, environment_of, everything, running, set_up, settings_for
from tests.support.simulator import LiveSimulator

pytestmark = pytest.mark.usefixtures("restored_logging")

SCENARIOS = [
    *(["passed"] * 30),
    *(["failed-2016", "unfinished-1", "http502-x1-passed", "garbage-x1-passed", "cut-x1-passed", "slashes"]),
    *(["throttled-1", "novideo"]),
]


def values_of(biz_token: str) -> Iterator[str]:
    person = person_of(biz_token)
    yield from (person.id_card, person.address, person.location, person.id_card[6:14] + person.id_card[14:])
    yield f"{person.name}{person.id_card}"
    yield f"EXTRA-{biz_token}-CANARY"


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def spellings(value: str) -> Iterator[bytes]:
    """The value as it may lie somewhere: plain, in JSON, in a URL, in hex, in base64 at any offset."""
    plain = value.encode()
    yield from (plain, value.encode("utf-16-le"), json.dumps(value)[1:-1].encode(), quote(value).encode())
    yield from (binascii.hexlify(plain), binascii.hexlify(plain).upper())
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + plain)
        yield encoded[4 if shift else 0 : -4]


class Canaries:
    """Searches for every spelling of every value at once: one by one, they take longer than all the rest."""

    def __init__(self, values: Sequence[str]) -> None:
        found = [(spelling, place) for place, value in enumerate(values) for spelling in spellings(value)]
        self._places = [place for _, place in found]
        self._search = BytesAhoCorasick([spelling for spelling, _ in found])

    def leaks(self, where: str, content: bytes) -> list[str]:
        """Where a value was found, and which: not the value itself."""
        return [
            f"{where}: value {self._places[pattern]}" for pattern, _, _ in self._search.find_matches_as_indexes(content)
        ]


@pytest.mark.parametrize("spelling", [*spellings("000000199001011234")], ids=[str(number) for number in range(9)])
def test_every_spelling_is_found(spelling: bytes) -> None:
    canaries = Canaries(["somebody else", "000000199001011234"])

    assert canaries.leaks("here", b"before" + spelling + b"after") == ["here: value 1"]
    assert canaries.leaks("here", b"before" + spelling[1:] + b"after") == []


async def walk(service: Running, api: httpx.AsyncClient, tokens: list[str]) -> None:
    """Every way in and out, good and bad."""
    for biz_token in tokens:
        await api.post("/v1/callbacks", json={"BizToken": biz_token, "Extra": f"EXTRA-{biz_token}-CANARY"})
    for biz_token in tokens:
        path, person = f"/v1/verifications/{biz_token}", person_of(biz_token)
        view = (await api.get(path, params={"wait": 30})).json()
        assert view["state"] == "retrieved", biz_token
        identity = (await api.get(f"{path}/identity")).json()
        assert identity["callback_extra"] == f"EXTRA-{biz_token}-CANARY"
        for medium in view["media"]:
            assert (await api.get(medium["href"], headers={"Range": "bytes=100-4999"})).status_code == 206
        await api.post("/v1/verifications/search", json={"id_card": person.id_card, "name": person.name})
        await api.post("/v1/verifications/search", json={"id_card": {"a": person.id_card}, person.id_card: 1})
        await api.post("/v1/callbacks", json={"BizToken": [person.id_card], "Extra": 1, person.name: 2})
        await api.post("/v1/callbacks", content=f'{{"BizToken": "{person.id_card}'.encode())
        await api.get(f"{path}/{quote(person.address)}")
    await api.get("/v1/verifications", params={"limit": 200})
    await api.delete(f"/v1/verifications/{tokens[0]}")
    for ring in Ring:
        async for _ in rotation(service.services).rotate(ring):
            pass
    await service.services.audit.seal()
    await service.services.health.count_persons()


async def dump(service: Running) -> bytes:
    async with service.services.database.read() as tx:
        rows = [tuple(row) for table in tables.metadata.sorted_tables for row in await tx.execute(select(table))]
    return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row)


@dataclass
class ObjectStore:
    """A prefix of the S3 server's bucket: the settings that name it, and what lies there."""

    server: S3
    prefix: str

    @property
    def settings(self) -> dict[str, object]:
        return {
            "media_url": f"s3://{self.server.bucket}/{self.prefix}",
            "aws_endpoint_url": self.server.endpoint,
            "aws_access_key_id": self.server.access_key_id,
            "aws_secret_access_key": SecretStr(self.server.secret_access_key),
        }

    def objects(self) -> dict[str, bytes]:
        store = S3Store(
            self.server.bucket,
            endpoint=self.server.endpoint,
            access_key_id=self.server.access_key_id,
            secret_access_key=self.server.secret_access_key,
            client_options={"allow_http": True},
        )
        paths = [meta["path"] for page in store.list(self.prefix) for meta in page]
        return {f"media/{path}": bytes(store.get(path).bytes()) for path in paths}


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> ObjectStore | None:
    if request.param == "folder":
        return None
    return ObjectStore(request.getfixturevalue("s3_server"), f"canary-{secrets.token_hex(4)}")


# The two axes are independent of each other: each value of each is enough.
@pytest.mark.parametrize(("database_url", "bucket"), [("sqlite", "folder"), ("postgres", "bucket")], indirect=True)
async def test_two_hundred_marked_values_are_found_nowhere_outside_the_answers(
    settings: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str], bucket: ObjectStore | None
) -> None:
    if bucket:
        settings = settings_for(
            tmp_path, settings.faceid_endpoint, database_url=settings.database_url, **bucket.settings
        )
    stream = io.StringIO()
    with redirect_stderr(stream):
        configure_logging("DEBUG")
    structlog.configure(cache_logger_on_first_use=False)  # for whoever logs after this test
    tokens = [token(scenario) for scenario in SCENARIOS]
    values = [value for biz_token in tokens for value in values_of(biz_token)]
    async with running(settings) as service:
        async with service.client(await service.key(*everything(), Scope.ADMIN)) as api:
            await walk(service, api, tokens)
            metrics = (await api.get("/metrics")).content
            rows = await dump(service)
        files = files_below(tmp_path) | (bucket.objects() if bucket else {})
    told = capfd.readouterr()

    assert len(set(values)) >= 200
    canaries = Canaries(values)
    found = canaries.leaks("metrics", metrics) + canaries.leaks("rows", rows)
    found += canaries.leaks("logs", (told.out + told.err + stream.getvalue()).encode())
    for name, content in files.items():
        found += canaries.leaks(Path(name).name, content)
    assert found == []
    assert stream.getvalue().count("\n") > 500
    assert any("media" in name for name in files)
    assert not any(content.startswith((b"\xff\xd8\xff", b"\x00\x00\x00")) for content in files.values())


@asynccontextmanager
async def stalling(faceid: LiveSimulator, answered_bytes: int) -> AsyncIterator[str]:
    """The address of a simulator whose answers stop after so many bytes, and never end."""
    for_ever = asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, request = await asyncio.open_connection("127.0.0.1", faceid.port)
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            request.write(head + await reader.readexactly(length))
            writer.write(await upstream.readexactly(answered_bytes))
            await for_ever.wait()
        for each in (request, writer):
            each.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for_ever.set()


async def test_a_worker_that_is_killed_while_a_result_streams_in_leaves_nothing_that_can_be_read(
    tmp_path: Path, faceid: LiveSimulator
) -> None:
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
            drafts: list[bytes] = []
            async with asyncio.timeout(20):
                while len(drafts) < len(tokens):
                    await asyncio.sleep(0.05)
                    drafts = [content for content in files_below(tmp_path / "media").values() if len(content) > 20_000]
            worker.kill()
            _, told = await worker.communicate()
            files = files_below(tmp_path)

    canaries = Canaries(values)
    found = canaries.leaks("logs", told)
    for name, content in files.items():
        found += canaries.leaks(Path(name).name, content)
    assert worker.returncode == -signal.SIGKILL
    assert found == []
    assert not any(b"\xff\xd8\xff" in content[:100] for content in drafts)
