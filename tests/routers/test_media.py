"""Media over HTTP: whole, by range and conditional. An incomplete download is recognisable."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import uvicorn
from sqlalchemy import text

from app.config import Settings
from app.domain.audit import Action, AuditFilter
from app.domain.media import MediaKind
from app.storage.media import FolderStore
from simulator.media import media_of
from tests.support.api import EXAMPLE, get, hasten, retrieve_new
from tests.support.service import Running, actor, everything, running, settings_for, with_services
from tests.support.simulator import LiveSimulator

FRAME = media_of(EXAMPLE)[MediaKind.BEST_FRAME]
SIZE = len(FRAME)
URL = f"/v1/verifications/{EXAMPLE}/media/best_frame"
WHOLE = {
    "Accept-Ranges": "bytes",
    "Cache-Control": "no-store",
    "Content-Length": str(SIZE),
    "Content-Type": "image/jpeg",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Request-Id": "given-by-the-caller",
}


async def etag_of(api: httpx.AsyncClient) -> str:
    return (await api.head(URL)).headers["ETag"]


@pytest.fixture(scope="module")
async def example_api(
    tmp_path_factory: pytest.TempPathFactory, faceid: LiveSimulator
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that has the result of the example token."""
    async with (
        running(settings_for(tmp_path_factory.mktemp("one"), faceid.url)) as service,
        service.client(await service.key(*everything())) as api,
    ):
        await api.post("/v1/callbacks", json={"BizToken": EXAMPLE})
        await get(api, EXAMPLE, wait=20)
        api.headers["X-Request-Id"] = "given-by-the-caller"
        yield api


def headers_of(answer: httpx.Response) -> dict[str, str]:
    return {name: answer.headers[name] for name in (*WHOLE, "Content-Range") if name in answer.headers}


async def test_item_is_returned_whole_with_its_detected_type(api: httpx.AsyncClient) -> None:
    biz_token = await retrieve_new(api)
    for kind, content in media_of(biz_token).items():
        answer = await api.get(f"/v1/verifications/{biz_token}/media/{kind}")

        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["Content-Type"] == ("video/mp4" if kind == MediaKind.LIVENESS_VIDEO else "image/jpeg")


async def test_get_and_head_have_the_same_headers(example_api: httpx.AsyncClient) -> None:
    whole, head = await example_api.get(URL), await example_api.head(URL)

    assert (whole.status_code, whole.content, headers_of(whole)) == (200, FRAME, WHOLE)
    assert (head.status_code, head.content, headers_of(head)) == (200, b"", WHOLE)
    known = {name.lower() for name in WHOLE} | {"etag", "ratelimit", "ratelimit-policy"}
    assert set(whole.headers) == set(head.headers) == known


@pytest.mark.parametrize(
    ("range_", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-1023", 0, 1024),
        ("bytes=1000-", 1000, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        (f"bytes=1-{SIZE - 1}", 1, SIZE),
        (f"bytes=1-{SIZE}", 1, SIZE),
        ("bytes=0-", 0, SIZE),
        (f"bytes=1-{2**63 - 1}", 1, SIZE),
        ("bytes=-5", SIZE - 5, SIZE),
        (f"bytes=-{SIZE + 5}", 0, SIZE),
        ("Bytes=2-3", 2, 4),
    ],
)
async def test_range_returns_that_part(example_api: httpx.AsyncClient, range_: str, start: int, stop: int) -> None:
    answer = await example_api.get(URL, headers={"Range": range_})

    assert (answer.status_code, answer.content) == (206, FRAME[start:stop])
    assert headers_of(answer) == WHOLE | {
        "Content-Length": str(stop - start),
        "Content-Range": f"bytes {start}-{stop - 1}/{SIZE}",
    }


@pytest.mark.parametrize("range_", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 1}", "bytes=-0", f"bytes={2**64}-"])
async def test_range_outside_the_item_is_416_with_the_size(example_api: httpx.AsyncClient, range_: str) -> None:
    answer = await example_api.get(URL, headers={"Range": range_})

    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
    assert answer.headers["Content-Type"] == "application/problem+json"


MULTIPLE = ["bytes=0-1,3-4", "bytes=0-1, -5"]
INVALID = [
    "",
    "bytes=",
    "bytes=-",
    "bytes=5-2",
    "bytes=a-b",
    "bytes=--5",
    "bytes 0-1",
    "lines=0-1",
    "0-1",
    "bytes=٠-١",
]


@pytest.mark.parametrize("range_", [*MULTIPLE, *INVALID, f"bytes=0-{'9' * 5000}"], ids=lambda text: text[:16])
async def test_multiple_and_invalid_ranges_are_ignored(example_api: httpx.AsyncClient, range_: str) -> None:
    answer = await example_api.get(URL, headers={b"Range": range_.encode()})

    assert (answer.status_code, len(answer.content)) == (200, SIZE)


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ({"If-Range": "{etag}"}, 206),
        ({"If-Range": '"other"'}, 200),
        ({"If-Range": "W/{etag}"}, 200),
        ({"If-Range": "Wed, 21 Oct 2026 07:28:00 GMT"}, 200),
        ({"If-None-Match": "{etag}"}, 304),
        ({"If-None-Match": '"other", W/{etag}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 206),
    ],
    ids=repr,
)
async def test_conditions_take_precedence_over_a_range(
    example_api: httpx.AsyncClient, condition: dict[str, str], status: int
) -> None:
    etag = await etag_of(example_api)
    conditions = {name: value.format(etag=etag) for name, value in condition.items()}

    answer = await example_api.get(URL, headers={"Range": "bytes=0-9"} | conditions)

    lengths = {200: SIZE, 206: 10, 304: 0}
    assert (answer.status_code, len(answer.content), answer.headers["ETag"]) == (status, lengths[status], etag)


async def test_head_honours_conditions_and_ignores_ranges(example_api: httpx.AsyncClient) -> None:
    ranged = await example_api.head(URL, headers={"Range": "bytes=0-9"})
    known = await example_api.head(URL, headers={"If-None-Match": await etag_of(example_api)})

    assert (ranged.status_code, headers_of(ranged)) == (200, WHOLE)
    assert known.status_code == 304


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_unknown_kind_is_422_and_absent_item_is_404(example_api: httpx.AsyncClient, method: str) -> None:
    biz_token = await retrieve_new(example_api, "novideo")
    unknown = await example_api.request(method, f"/v1/verifications/{biz_token}/media/nose")
    absent = await example_api.request(method, f"/v1/verifications/{biz_token}/media/liveness_video")

    assert (unknown.status_code, absent.status_code) == (422, 404)


async def file_of(service: Running, settings: Settings, kind: MediaKind) -> Path:
    async with service.services.database.read() as tx:
        key = await tx.connection.scalar(text("SELECT object_key FROM media WHERE kind = :kind"), {"kind": kind})
    (path,) = settings.database.data_dir.rglob(str(key))
    return path


async def test_item_missing_from_the_store_is_503(service: Running, settings: Settings) -> None:
    async with service.client(await service.key(*everything())) as api:
        biz_token = await retrieve_new(api)
        (await file_of(service, settings, MediaKind.BEST_FRAME)).unlink()
        answer = await api.get(f"/v1/verifications/{biz_token}/media/best_frame")

    assert (answer.status_code, answer.json()["code"]) == (503, "media_missing")
    assert answer.headers["Content-Type"] == "application/problem+json"


@asynccontextmanager
async def connected(service: Running, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yields a client of the service behind a real server, which answers as soon as it is up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(service.app, log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(
            base_url=address, headers={"Authorization": f"Bearer {key}", "X-Purpose": "test"}
        ) as client:
            yield client
        server.should_exit = True
        await task


def cut(blob: bytes) -> bytes:
    return blob[:500_000]


def tampered(blob: bytes) -> bytes:
    return blob[:700_000] + bytes([blob[700_000] ^ 1]) + blob[700_001:]


@pytest.mark.parametrize("spoil", [cut, tampered])
async def test_incomplete_download_is_a_protocol_error(
    service: Running, settings: Settings, spoil: Callable[[bytes], bytes]
) -> None:
    key = await service.key(*everything())
    async with connected(service, key) as client:
        biz_token = await retrieve_new(client)
        path = await file_of(service, settings, MediaKind.LIVENESS_VIDEO)
        path.write_bytes(spoil(path.read_bytes()))

        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"/v1/verifications/{biz_token}/media/liveness_video")
        assert (await client.get("/livez")).status_code == 200


class ReplacingStore(FolderStore):
    """Runs something before the first read, when the API has already read the row of the item."""

    def __init__(self, root: Path, before_read: Callable[[], Awaitable[None]]) -> None:
        super().__init__(root)
        self._before_read: Callable[[], Awaitable[None]] | None = before_read

    async def open(self, key: str, start: int, stop: int) -> AsyncIterator[bytes]:
        before_read, self._before_read = self._before_read, None
        if before_read:
            await before_read()
        async for piece in super().open(key, start, stop):
            yield piece


@pytest.mark.parametrize(
    ("headers", "status", "part"), [({}, 200, slice(None)), ({"Range": "bytes=5-9"}, 206, slice(5, 10))]
)
async def test_item_replaced_during_a_download_is_read_from_its_new_object(
    service: Running, api: httpx.AsyncClient, settings: Settings, headers: dict[str, str], status: int, part: slice
) -> None:
    biz_token = await retrieve_new(api)

    async def retrieve_again() -> None:
        await api.post(f"/v1/verifications/{biz_token}/retrieve")
        await hasten(service.services, biz_token)
        for _ in range(200):
            if (await get(api, biz_token))["retrieval"]["attempts"] == 2:
                return
            await asyncio.sleep(0.1)
        pytest.fail("The result was not retrieved again.")

    services = service.services
    store = ReplacingStore(settings.media.media_folder, retrieve_again)
    service.app.state.services = with_services(services, media=replace(services.media, store=store))
    response = await api.get(f"/v1/verifications/{biz_token}/media/best_frame", headers=headers)

    assert (response.status_code, response.content) == (status, media_of(biz_token)[MediaKind.BEST_FRAME][part])
    audit = await services.audit.search(actor(), AuditFilter(action=Action.MEDIA), biz_token, limit=10, cursor=None)
    assert len(audit.records) == 1


async def test_item_is_unchanged_behind_a_real_server(service: Running) -> None:
    key = await service.key(*everything())
    async with connected(service, key) as client:
        biz_token = await retrieve_new(client)
        url = f"/v1/verifications/{biz_token}/media/liveness_video"
        whole, head = await client.get(url), await client.head(url)

    video = media_of(biz_token)[MediaKind.LIVENESS_VIDEO]
    assert (whole.content, head.content, head.headers["Content-Length"]) == (video, b"", str(len(video)))


async def test_download_does_not_block_other_tasks(service: Running) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with service.client(await service.key(*everything())) as api:
        biz_token = await retrieve_new(api)
    media = service.services.media
    found = await media.find(actor(), biz_token, MediaKind.LIVENESS_VIDEO)
    pieces = await media.open(actor(purpose="test"), found, 0, found.item.size_bytes)
    task = asyncio.create_task(others())
    count = len([piece async for piece in pieces])
    task.cancel()

    # The other task starts to count in its second turn.
    assert turns >= count - 2 > 0
