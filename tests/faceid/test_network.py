"""The way to Tencent: several addresses, a proxy and a private certificate authority, all over real sockets."""

import asyncio
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from pydantic import SecretStr, ValidationError

from app.config import Settings
from app.domain.decision import ErrorClass
from app.domain.detection import InfoType
from app.errors import ConfigurationError
from app.faceid import error_codes as codes
from app.faceid.client import FaceIdClient, server_time
from app.faceid.credentials import AccountSettings, FaceIdSettings
from tests.support.servers import write_certificate
from tests.support.tencent import SUCCESS, Kept, unresponsive

ANSWER = b"HTTP/1.1 200 OK\r\nDate: Thu, 26 Nov 2026 08:00:00 GMT\r\nContent-Length: %d\r\n\r\n%b" % (
    len(SUCCESS),
    SUCCESS,
)
PASSWORD = "a-password-to-keep-secret"


def settings_for(endpoint: str, **others: object) -> FaceIdSettings:
    keys = {"tencentcloud_secret_id": "id", "tencentcloud_secret_key": "key", "faceid_endpoint": endpoint}
    return FaceIdSettings.model_validate(keys | others)


async def error_code(settings: FaceIdSettings) -> str | None:
    async with FaceIdClient(settings, connections=1) as client:
        answer = await client.get_detect_info(biz_token="a", rule_id="1", info_type=InfoType("0"), open_sink=Kept)
    return answer.call.error_code


@asynccontextmanager
async def tencent(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serves results; yields the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
        await reader.readexactly(int(length[1]) if length else 0)
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def proxy(*, status: str = "200 OK") -> AsyncIterator[tuple[str, list[str]]]:
    """Tunnels as CONNECT requests; yields the proxy's host and port, and the heads of the requests."""
    heads: list[str] = []
    tasks: list[asyncio.Task[None]] = []

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
        if not status.startswith("200"):
            writer.close()
            return
        host, port = heads[-1].split()[1].split(":")
        upstream, to_upstream = await asyncio.open_connection(host, int(port))
        tasks.append(asyncio.create_task(copy(upstream, writer)))
        await copy(reader, to_upstream)

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", heads
        await asyncio.gather(*tasks)


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    """A server's TLS context, whose certificate no public authority signed."""
    write_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    return context


async def test_private_authority_is_trusted_if_the_settings_name_it(tmp_path: Path, context: ssl.SSLContext) -> None:
    async with tencent(context) as port:
        with_file = settings_for(f"https://127.0.0.1:{port}", faceid_ca_file=tmp_path / "certificate.pem")
        assert await error_code(settings_for(f"https://127.0.0.1:{port}")) == codes.CONNECTION_FAILED
        assert await error_code(with_file) is None
        assert (await server_time(with_file.all_accounts["default"])).tzinfo is UTC


async def test_private_authority_replaces_the_public_ones(tmp_path: Path, context: ssl.SSLContext) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_certificate(other)
    async with tencent(context) as port:
        settings = settings_for(f"https://127.0.0.1:{port}", faceid_ca_file=other / "certificate.pem")
        assert await error_code(settings) == codes.CONNECTION_FAILED


@pytest.mark.parametrize("userinfo", ["", f"user:{PASSWORD}@"])
async def test_calls_go_through_the_proxy_of_the_settings(
    tmp_path: Path, context: ssl.SSLContext, userinfo: str
) -> None:
    async with tencent(context) as port, proxy() as (address, heads):
        settings = settings_for(
            f"https://127.0.0.1:{port}",
            faceid_ca_file=tmp_path / "certificate.pem",
            faceid_proxy=f"http://{userinfo}{address}",
        )
        assert await error_code(settings) is None
        await server_time(settings.all_accounts["default"])

    assert [head.split("\r\n")[0] for head in heads] == [f"CONNECT 127.0.0.1:{port} HTTP/1.1"] * 2
    sent = f"Proxy-Authorization: Basic {b64encode(f'user:{PASSWORD}'.encode()).decode()}"
    assert [sent in head for head in heads] == [bool(userinfo)] * 2
    assert PASSWORD not in repr(settings) + repr(settings.all_accounts)


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"])
async def test_proxy_that_refuses_has_its_own_error_code(status: str) -> None:
    async with proxy(status=status) as (address, _):
        settings = settings_for("https://127.0.0.1:9", faceid_proxy=f"http://{address}")
        assert await error_code(settings) == codes.PROXY_FAILED


async def test_proxy_that_is_away_has_its_own_error_code() -> None:
    async with proxy() as (address, _):
        pass

    assert await error_code(settings_for("https://127.0.0.1:9", faceid_proxy=f"http://{address}")) == codes.PROXY_FAILED


@pytest.mark.parametrize(
    "value",
    [
        "",
        "http://",
        f"user:{PASSWORD}@host:3128",
        f"https://user:{PASSWORD}@host:3128",
        f"socks5://user:{PASSWORD}@host:1080",
        f"http://user:{PASSWORD}@host:3128/path",
        f"http://[::1{PASSWORD}",
    ],
)
def test_invalid_proxy_is_an_error_that_names_the_setting_and_not_its_value(value: str) -> None:
    with pytest.raises(ValidationError, match=r"it must be http://host:port") as raised:
        settings_for("x", faceid_proxy=value)

    assert raised.value.errors()[0]["loc"] == ("faceid_proxy",)
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file or directory"), (b"", "no certificate"), (b"x", "no certificate")]
)
def test_file_without_certificates_is_an_error_that_names_the_setting(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigurationError, match=f"FACEID_CA_FILE.*{reason}"):
        FaceIdClient(settings_for("x", faceid_ca_file=file), connections=1)


def test_account_has_the_default_proxy_and_authority_unless_it_names_its_own() -> None:
    own = AccountSettings(proxy=SecretStr("http://user:pw@other:1"), ca_file=Path("own.pem"))
    settings = FaceIdSettings(
        faceid_proxy=SecretStr("http://host:3128"),
        faceid_ca_file=Path("ca.pem"),
        accounts={"bank": AccountSettings(), "own": own},
    )

    assert {name: account.route for name, account in settings.all_accounts.items()} == {
        "default": "Calls go through the proxy http://host:3128 and trust the certificates in ca.pem.",
        "bank": "Calls go through the proxy http://host:3128 and trust the certificates in ca.pem.",
        "own": "Calls go through the proxy http://other:1 and trust the certificates in own.pem.",
    }
    assert AccountSettings().route == "Calls go without a proxy and trust the public certificate authorities."


def test_proxy_and_authority_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEID_PROXY", "http://user:pw@host:3128")
    monkeypatch.setenv("FACEID_CA_FILE", "ca.pem")

    route = Settings.read().faceid.all_accounts["default"].route

    assert route == "Calls go through the proxy http://host:3128 and trust the certificates in ca.pem."


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_first_attempt_succeeds_although_the_first_address_drops_packets(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[Coroutine[Any, Any, str | None]], str | None]
) -> None:
    async def resolve(_: object, host: str, port: int = 0, **__: object) -> list[dict[str, object]]:
        common: dict[str, object] = {"hostname": host, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
        return [common | {"host": address} for address in ("127.0.0.2", "127.0.0.1")]

    # One address after the other would use up the deadline with the first.
    async def ask_once() -> str | None:
        async with tencent() as port:
            with unresponsive("127.0.0.2", port):
                return await error_code(settings_for(f"http://two-addresses.example:{port}", faceid_timeout_seconds=4))

    monkeypatch.setattr(aiohttp.DefaultResolver, "resolve", resolve)

    assert run(ask_once()) is None


@pytest.mark.parametrize("seconds", [1, 30])
async def test_connect_timeout_is_no_statement_about_the_size(seconds: float) -> None:
    with unresponsive("127.0.0.2") as port:
        assert (
            await error_code(settings_for(f"http://127.0.0.2:{port}", faceid_timeout_seconds=seconds))
            == codes.CONNECT_TIMED_OUT
        )
    assert codes.classify(codes.CONNECT_TIMED_OUT) is ErrorClass.RETRY
