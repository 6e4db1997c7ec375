"""Media over HTTP: whole, by range, conditionally, and never half without saying so."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from sqlalchemy import text

from app.config import Settings
from app.domain.access import OPERATOR
from app.domain.detection import MediaKind
from app.errors import RangeNotSatisfiableError
from app.routers.media import parse_range
from simulator.media import media_of
from tests.support.api import EXAMPLE, get, retrieved
from tests.support.service import Running, everything, running, settings_for
from tests.support.simulator import LiveSimulator

FRAME = media_of(EXAMPLE)[MediaKind.BEST_FRAME]
SIZE = len(FRAME)
URL = f"/v1/verifications/{EXAMPLE}/media/best_frame"
WHOLE = {
    "Accept-Ranges": "bytes",
    "Cache-Control": "no-store",
    "Content-Length": str(SIZE),
    "Content-Type": "image/jpeg",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Request-Id": "given-by-the-caller",
}


async def etag_of(api: httpx.AsyncClient) -> str:
    return (await api.head(URL)).headers["ETag"]


@pytest.fixture(scope="module")
async def one(tmp_path_factory: pytest.TempPathFactory, faceid: LiveSimulator) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that has the example's result."""
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


async def test_a_medium_comes_whole_with_its_sniffed_type(api: httpx.AsyncClient) -> None:
    biz_token = await retrieved(api)
    for kind, content in media_of(biz_token).items():
        answer = await api.get(f"/v1/verifications/{biz_token}/media/{kind}")

        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["Content-Type"] == ("video/mp4" if kind == MediaKind.LIVENESS_VIDEO else "image/jpeg")


async def test_get_and_head_have_the_same_headers(one: httpx.AsyncClient) -> None:
    whole, head = await one.get(URL), await one.head(URL)

    assert (whole.status_code, whole.content, headers_of(whole)) == (200, FRAME, WHOLE)
    assert (head.status_code, head.content, headers_of(head)) == (200, b"", WHOLE)
    assert set(whole.headers) == set(head.headers) == {name.lower() for name in WHOLE} | {"etag"}


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
async def test_a_range_is_answered_with_that_part(one: httpx.AsyncClient, range_: str, start: int, stop: int) -> None:
    answer = await one.get(URL, headers={"Range": range_})

    assert (answer.status_code, answer.content) == (206, FRAME[start:stop])
    assert headers_of(answer) == WHOLE | {
        "Content-Length": str(stop - start),
        "Content-Range": f"bytes {start}-{stop - 1}/{SIZE}",
    }


@pytest.mark.parametrize("range_", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 1}", "bytes=-0", f"bytes={2**64}-"])
async def test_a_range_outside_is_416_and_says_the_size(one: httpx.AsyncClient, range_: str) -> None:
    answer = await one.get(URL, headers={"Range": range_})

    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
    assert answer.headers["Content-Type"] == "application/problem+json"


SEVERAL = ["bytes=0-1,3-4", "bytes=0-1, -5"]
NONSENSE = [
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


@pytest.mark.parametrize("range_", [*SEVERAL, *NONSENSE, f"bytes=0-{'9' * 5000}"], ids=lambda text: text[:16])
async def test_several_ranges_and_nonsense_are_ignored(one: httpx.AsyncClient, range_: str) -> None:
    answer = await one.get(URL, headers={b"Range": range_.encode()})

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
async def test_conditions_decide_over_a_range(one: httpx.AsyncClient, condition: dict[str, str], status: int) -> None:
    etag = await etag_of(one)
    conditions = {name: value.format(etag=etag) for name, value in condition.items()}

    answer = await one.get(URL, headers={"Range": "bytes=0-9"} | conditions)

    lengths = {200: SIZE, 206: 10, 304: 0}
    assert (answer.status_code, len(answer.content), answer.headers["ETag"]) == (status, lengths[status], etag)


async def test_head_knows_conditions_but_no_ranges(one: httpx.AsyncClient) -> None:
    ranged = await one.head(URL, headers={"Range": "bytes=0-9"})
    known = await one.head(URL, headers={"If-None-Match": await etag_of(one)})

    assert (ranged.status_code, headers_of(ranged)) == (200, WHOLE)
    assert known.status_code == 304


def test_of_an_empty_medium_no_range_can_be_had() -> None:
    assert parse_range(None, 0) is None
    with pytest.raises(RangeNotSatisfiableError):
        parse_range("bytes=0-", 0)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_kind_that_nobody_knows_and_one_that_is_not_there(one: httpx.AsyncClient, method: str) -> None:
    biz_token = await retrieved(one, "novideo")
    unknown = await one.request(method, f"/v1/verifications/{biz_token}/media/nose")
    absent = await one.request(method, f"/v1/verifications/{biz_token}/media/liveness_video")

    assert (unknown.status_code, absent.status_code) == (422, 404)


async def file_of(service: Running, settings: Settings, kind: MediaKind) -> Path:
    async with service.services.database.read() as tx:
        key = await tx.scalar(text("SELECT object_key FROM media WHERE kind = :kind"), {"kind": kind})
    (path,) = settings.data_dir.rglob(str(key))
    return path


async def test_a_medium_that_the_store_has_lost_is_503_and_no_broken_download(
    service: Running, settings: Settings
) -> None:
    async with service.client(await service.key(*everything())) as api:
        biz_token = await retrieved(api)
        (await file_of(service, settings, MediaKind.BEST_FRAME)).unlink()
        answer = await api.get(f"/v1/verifications/{biz_token}/media/best_frame")

    assert (answer.status_code, answer.json()["code"]) == (503, "media_missing")
    assert answer.headers["Content-Type"] == "application/problem+json"


@asynccontextmanager
async def connected(service: Running, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a real server in between; it queues at the open socket until the server is up."""
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


def altered(blob: bytes) -> bytes:
    return blob[:700_000] + bytes([blob[700_000] ^ 1]) + blob[700_001:]


@pytest.mark.parametrize("spoiled", [cut, altered])
async def test_a_download_that_breaks_off_cannot_be_taken_for_a_whole_one(
    service: Running, settings: Settings, spoiled: Callable[[bytes], bytes]
) -> None:
    key = await service.key(*everything())
    async with connected(service, key) as client:
        biz_token = await retrieved(client)
        path = await file_of(service, settings, MediaKind.LIVENESS_VIDEO)
        path.write_bytes(spoiled(path.read_bytes()))

        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"/v1/verifications/{biz_token}/media/liveness_video")
        assert (await client.get("/livez")).status_code == 200


async def test_a_medium_comes_through_a_real_server_as_it_is(service: Running) -> None:
    key = await service.key(*everything())
    async with connected(service, key) as client:
        biz_token = await retrieved(client)
        url = f"/v1/verifications/{biz_token}/media/liveness_video"
        whole, head = await client.get(url), await client.head(url)

    video = media_of(biz_token)[MediaKind.LIVENESS_VIDEO]
    assert (whole.content, head.content, head.headers["Content-Length"]) == (video, b"", str(len(video)))


async def test_others_have_their_turns_while_a_medium_goes_out(service: Running) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with service.client(await service.key(*everything())) as api:
        biz_token = await retrieved(api)
    _, pieces = await service.services.query.open_medium(
        OPERATOR,
        biz_token,
        MediaKind.LIVENESS_VIDEO,
        lambda medium: (0, medium.size_bytes),
        purpose="test",
        request_id="test",
    )
    assert pieces
    task = asyncio.create_task(others())
    count = len([piece async for piece in pieces])
    task.cancel()

    assert turns >= count - 2 > 0  # its first only begins to count
