"""The shipped nginx.conf in a real nginx, in front of two servers instead of the containers of the API."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from app.config import Settings
from tests.support.processes import answers, until
from tests.support.proxy import nginx
from tests.support.servers import NGINX
from tests.support.service import changed, everything, served

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


class Upstream:
    """A server that reads a request and then answers it, or closes the connection without an answer."""

    def __init__(self, asked: asyncio.Event) -> None:
        self.asked = asked
        self.is_ending = False
        self.requests: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head.decode().partition(" HTTP")[0])
        self.asked.set()
        if b"wait=" in head:
            await self.may_answer.wait()
        if not self.is_ending:
            writer.write(ANSWER)
            await writer.drain()
        writer.close()


Proxied = tuple[list[Upstream], httpx.AsyncClient, "subprocess.Popen[bytes]"]


async def refuses(port: int) -> bool:
    return not await answers("127.0.0.1", port)


@pytest.fixture
async def proxied(tmp_path: Path) -> AsyncIterator[Proxied]:
    asked = asyncio.Event()
    upstreams = [Upstream(asked), Upstream(asked)]
    async with AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(upstream.listening()) for upstream in upstreams]
        process, port = stack.enter_context(nginx(tmp_path, ports))
        async with asyncio.timeout(10):
            await until(lambda: answers("127.0.0.1", port))
        api = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20))
        yield upstreams, api, process


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/verifications/one", 200),
        ("PUT", "/v1/verifications/one", 200),
        ("DELETE", "/v1/verifications/one", 200),
        ("POST", "/v1/callbacks", 200),
        # Not sent again: the API may have acted on it.
        ("POST", "/v1/verifications/one/retrieve", 502),
    ],
)
async def test_request_of_an_api_that_ends_is_sent_to_the_other(
    proxied: Proxied, method: str, path: str, status: int
) -> None:
    (ending, lasting), api, _ = proxied
    ending.is_ending = True

    # nginx takes turns, so one of two requests meets the ending API.
    seen = {(await api.request(method, path, content=b"{}")).status_code for _ in range(4)}

    assert seen == {200, status}
    assert ending.requests == [f"{method} {path}"] * 2
    assert lasting.requests == [f"{method} {path}"] * (4 if status == 200 else 2)


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def send_from(address: str, port: int, sent: bytes, count: int) -> list[Connection]:
    """Opens connections from an address of this machine and sends the same bytes on each."""
    connections = [await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0)) for _ in range(count)]
    for _, writer in connections:
        writer.write(sent)
    return connections


async def statuses(port: int, address: str) -> list[int]:
    """Returns the answers to a read, a callback and the probes from an address of this machine."""
    transport = httpx.AsyncHTTPTransport(local_address=address)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=20) as api:
        answers = [
            await api.get("/v1/verifications/one"),
            await api.post("/v1/callbacks", content=b"{}"),
            await api.get("/livez"),
            await api.get("/readyz"),
        ]
    return [answer.status_code for answer in answers]


HALF_A_HEAD = b"GET /v1/verifications/one HTTP/1.1\r\nHost: test"
HALF_A_BODY = b" HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n{"


@pytest.mark.parametrize("start", [b"POST /v1/callbacks", b"POST /v1/redirects", b"GET /v1/verifications/one"])
async def test_unfinished_requests_lock_nobody_out(proxied: Proxied, start: bytes) -> None:
    _, api, _ = proxied
    port = api.base_url.port or 80
    # More than all clients may have open in the API.
    addresses = [f"127.0.0.{number}" for number in range(10, 18)]
    open_ones = [one for address in addresses for one in await send_from(address, port, start + HALF_A_BODY, 230)]
    open_ones += await send_from(addresses[0], port, HALF_A_HEAD, 300)
    try:
        assert await statuses(port, "127.0.0.2") == [200] * 4
        assert (await statuses(port, addresses[0]))[2:] == [200] * 2
    finally:
        for _, writer in open_ones:
            writer.close()


async def test_waits_of_a_client_leave_room_for_its_callbacks_and_probes(proxied: Proxied) -> None:
    upstreams, api, _ = proxied
    port = api.base_url.port or 80
    for upstream in upstreams:
        upstream.may_answer.clear()
    waiting = b"GET /v1/verifications/one?wait=60 HTTP/1.1\r\nHost: test\r\n\r\n"

    async def all_wait() -> bool:
        return sum(len(upstream.requests) for upstream in upstreams) == 256

    held = await send_from("127.0.0.3", port, waiting, 256)
    try:
        async with asyncio.timeout(20):
            await until(all_wait)
        seen, others = await statuses(port, "127.0.0.3"), await statuses(port, "127.0.0.2")
    finally:
        for upstream in upstreams:
            upstream.may_answer.set()
        for reader, writer in held:
            await reader.readuntil(b"ok")
            writer.close()

    assert (seen, others) == ([429, 200, 200, 200], [200] * 4)


async def test_error_of_the_proxy_has_the_headers_of_the_api(proxied: Proxied, idle_api: httpx.AsyncClient) -> None:
    _, through_proxy, _ = proxied
    asked = {"X-Request-Id": "given-by-the-caller"}

    refused = await through_proxy.get("/metrics", headers=asked)
    unknown = await idle_api.get("/nowhere", headers=asked)

    of_a_connection = {"server", "date", "connection", "content-length"}
    headers = {name: value for name, value in refused.headers.items() if name not in of_a_connection}
    assert headers == {name: value for name, value in unknown.headers.items() if name != "content-length"}
    assert (refused.status_code, refused.json()["code"]) == (404, unknown.json()["code"])


async def test_stopping_proxy_waits_for_the_open_answer_of_the_api(proxied: Proxied) -> None:
    upstreams, api, process = proxied
    for upstream in upstreams:
        upstream.may_answer.clear()
    waiting = asyncio.create_task(api.get("/v1/verifications/one", params={"wait": 60}))
    await upstreams[0].asked.wait()

    process.send_signal(signal.SIGQUIT)
    await until(lambda: refuses(api.base_url.port or 80))
    for upstream in upstreams:
        upstream.may_answer.set()

    assert (await waiting).status_code == 200
    assert await asyncio.to_thread(process.wait, 20) == 0


async def test_events_are_streamed_through_the_proxy_at_once(tmp_path: Path, settings: Settings) -> None:
    async with served(settings) as (service, api_port):
        with nginx(tmp_path, [api_port]) as (_, port):
            async with asyncio.timeout(10):
                await until(lambda: answers("127.0.0.1", port))
            headers = {"Authorization": f"Bearer {await service.key(*everything())}", "Last-Event-ID": "0"}
            async with (
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20) as api,
                api.stream("GET", "/v1/events/stream") as stream,
            ):
                lines = stream.aiter_lines()
                begin = [await anext(lines) for _ in range(3)]
                await api.put("/v1/verifications/one")
                await api.delete("/v1/verifications/one")
                await service.services.outbox.sequence()
                event = [await anext(lines) for _ in range(2)]

    assert begin[1:] == [": ok", ""]
    assert event == ["id: 1", "event: verification.erased"]


async def test_waits_of_disconnected_callers_are_freed_behind_the_proxy(tmp_path: Path, settings: Settings) -> None:
    most = 20
    async with served(changed(settings, waits_per_key=most)) as (service, api_port):
        with nginx(tmp_path, [api_port]) as (_, port):
            async with asyncio.timeout(10):
                await until(lambda: answers("127.0.0.1", port))
            headers = {"Authorization": f"Bearer {await service.key(*everything())}"}
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=70) as api:
                await api.put("/v1/verifications/one")

                async def status(seconds: float) -> int:
                    return (await api.get("/v1/verifications/one", params={"wait": seconds})).status_code

                waiting = [asyncio.create_task(status(60)) for _ in range(most + 1)]
                # One of them is too many, so all others are held.
                (refused,) = (await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED))[0]
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
                async with asyncio.timeout(20):
                    while set(await asyncio.gather(*(status(0.01) for _ in range(most)))) != {200}:
                        pass

    assert refused.result() == 429
