"""The shipped nginx.conf in a real nginx, in front of two servers instead of the containers of the API."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest

from app.config import Settings
from tests.support.processes import answers, until
from tests.support.servers import NGINX, free_ports
from tests.support.service import changed, everything, served

CONFIGURATION = Path(__file__).parents[1] / "deploy" / "nginx.conf"
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
        await self.may_answer.wait()
        if not self.is_ending:
            writer.write(ANSWER)
            await writer.drain()
        writer.close()


Proxied = tuple[list[Upstream], httpx.AsyncClient, "subprocess.Popen[bytes]"]


@contextmanager
def nginx(folder: Path, ports: list[int]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Runs nginx with the shipped configuration; only paths and addresses differ. Yields it and its port."""
    port = free_ports(["nginx"])["nginx"]
    servers = "".join(f"server 127.0.0.1:{each} max_fails=0; " for each in ports)
    text = CONFIGURATION.read_text()
    for old, new in (
        (" /tmp/", f" {folder}/"),
        ("listen 8080 ", f"listen 127.0.0.1:{port} "),
        ("http://api:8000", "http://apis"),
        ("http {", f"http {{ upstream apis {{ {servers} }}"),
    ):
        assert old in text
        text = text.replace(old, new, 1) if old == "http {" else text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    # The workers of a server that root starts run as another user.
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    process = subprocess.Popen(
        [NGINX or "nginx", "-c", folder / "nginx.conf", "-g", "daemon off;"], stdout=subprocess.DEVNULL
    )
    try:
        yield process, port
    finally:
        process.kill()
        process.wait()


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
