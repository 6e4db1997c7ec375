"""The client reads what the official SDK reads, and survives any misbehaviour of the server."""

import asyncio
import base64
import json
import logging
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pydantic import SecretStr, ValidationError
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException

from app.domain.detection import Detection, InfoType, LivenessAttempt
from app.domain.media import MediaKind
from app.errors import ConfigurationError, UnavailableError
from app.faceid import error_codes as codes
from app.faceid.client import DetectAnswer, FaceIdClient
from app.faceid.credentials import FaceIdSettings
from simulator.answers import Subject, detect_info
from simulator.authentication import KeyPair
from simulator.options import DEMO_CREDENTIALS, SimulatorOptions
from simulator.scenarios import Scenario
from tests.support.simulator import (
    ERROR_CODES,
    INFO_TYPES,
    NO_QUOTA,
    SCENARIOS,
    LiveSimulator,
    live_simulator,
    request_for,
)
from tests.support.tencent import SUCCESS, Kept, Speak, client_of, in_our_names, media_in, peer, saying

KEY = "a-key-to-keep-secret"
MEDIA = {
    MediaKind.ID_CARD_FRONT: ("IdCardData", "OcrFront"),
    MediaKind.ID_CARD_BACK: ("IdCardData", "OcrBack"),
    MediaKind.BEST_FRAME: ("BestFrame", "BestFrame"),
    MediaKind.LIVENESS_VIDEO: ("VideoData", "LivenessVideo"),
}
ENDLESS = 10**9


class Counted:
    """A sink that only counts."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)


async def ask(client: FaceIdClient, scenario: str = "passed", info_type: str = "0") -> DetectAnswer[Kept]:
    return await client.get_detect_info(biz_token=scenario, rule_id="1", info_type=InfoType(info_type), open_sink=Kept)


async def error_code_at(url: str, *, seconds: float = 20, max_bytes: int = 2**25) -> str | None:
    async with client_of(url, seconds=seconds, max_bytes=max_bytes) as client:
        return (await ask(client)).call.error_code


def closing(raw: bytes) -> Speak:
    """Sends the bytes as they are and closes the connection."""

    async def speak(writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        writer.close()

    return speak


def repeating(head: bytes, piece: bytes, *, pause: float = 0) -> Speak:
    """Sends the head once and the piece without end."""

    async def speak(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return speak


@pytest.fixture(scope="module")
def for_sdk() -> Iterator[LiveSimulator]:
    """A simulator for the SDK alone, because scenarios count the calls."""
    with live_simulator(NO_QUOTA) as running:
        yield running


def read_by_sdk(document: str) -> tuple[Detection | None, dict[MediaKind, bytes]]:
    """The SDK's result in our own values."""
    info = json.loads(document)
    encoded = {kind: (info.get(part) or {}).get(name) for kind, (part, name) in MEDIA.items()}
    media = {kind: base64.b64decode(text, validate=True) for kind, text in encoded.items() if text}
    if "Text" not in info:
        return None, media
    text = info["Text"]
    attempts = text.pop("Detail")["LivenessData"]
    return Detection(
        **in_our_names(text), liveness_attempts=tuple(LivenessAttempt(**in_our_names(each)) for each in attempts)
    ), media


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")
@pytest.mark.parametrize(
    ("biz_token", "info_type"),
    [*((f"passed-{info_type}", info_type) for info_type in INFO_TYPES), *((token, "0") for token in SCENARIOS)],
)
async def test_result_is_read_as_by_the_official_sdk(
    for_sdk: LiveSimulator, faceid: LiveSimulator, biz_token: str, info_type: str
) -> None:
    document = for_sdk.official_client().GetDetectInfo(request_for(biz_token, info_type)).DetectInfo

    async with client_of(faceid.url) as client:
        fetched = await ask(client, biz_token, info_type)

    call = fetched.call
    assert (fetched.detection, media_in(fetched)) == read_by_sdk(document)
    assert (call.action, call.info_type, call.error_code) == ("GetDetectInfo", info_type, None)
    assert call.request_id is not None
    assert len(call.request_id) == 36
    assert call.bytes_received > len(document)


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")
@pytest.mark.parametrize("code", ERROR_CODES)
async def test_error_is_read_as_by_the_official_sdk(for_sdk: LiveSimulator, faceid: LiveSimulator, code: str) -> None:
    with pytest.raises(TencentCloudSDKException) as raised:
        for_sdk.official_client().GetDetectInfo(request_for(f"error-{code}-1"))

    async with client_of(faceid.url) as client:
        fetched = await ask(client, f"error-{code}-1")

    assert fetched.call.error_code == raised.value.code == code
    assert len(fetched.call.request_id or "") == len(raised.value.requestId)
    assert (fetched.detection, fetched.media) == (None, {})


@pytest.mark.parametrize(
    ("biz_token", "code"),
    [("http502-1", "http.502"), ("cut-1", codes.CONNECTION_FAILED), ("garbage-1", codes.UNREADABLE)],
)
async def test_transport_failure_has_its_own_error_code(faceid: LiveSimulator, biz_token: str, code: str) -> None:
    async with client_of(faceid.url) as client:
        fetched = await ask(client, biz_token)

    assert fetched == DetectAnswer(replace(fetched.call, error_code=code, request_id=None))


async def test_wrong_secret_key_is_rejected_by_tencent(faceid: LiveSimulator) -> None:
    async with client_of(faceid.url, KeyPair(DEMO_CREDENTIALS.secret_id, "another")) as client:
        assert (await ask(client)).call.error_code == "AuthFailure.SignatureFailure"


async def test_temporary_credentials_are_sent_with_their_token() -> None:
    temporary = KeyPair("AKIDTEMPORARY", "key", "token")
    with live_simulator(SimulatorOptions(credentials=(temporary,))) as running:
        async with client_of(running.url, temporary) as client:
            assert (await ask(client)).call.error_code is None
        async with client_of(running.url, KeyPair("AKIDTEMPORARY", "key")) as client:
            assert (await ask(client)).call.error_code == "AuthFailure.TokenFailure"


async def test_request_is_signed_and_accepts_no_compression() -> None:
    async with peer(saying(SUCCESS)) as (url, received), client_of(url, KeyPair("id", KEY, "token")) as client:
        await ask(client)

    ((head, _),) = received
    lines = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if line)
    assert head.startswith("POST / HTTP/1.1\r\n")
    assert {name: lines[name] for name in ("content-type", "x-tc-action", "x-tc-version", "accept-encoding")} == {
        "content-type": "application/json",
        "x-tc-action": "getdetectinfo",
        "x-tc-version": "2018-03-01",
        "accept-encoding": "identity",
    }
    assert lines["x-tc-token"] == "token"
    assert "signedheaders=content-type;host;x-tc-action, signature=" in lines["authorization"]


async def test_error_is_read_whatever_its_content_type() -> None:
    """The official SDK treats it as a success without a result."""
    body = b'{"Response":{"Error":{"Code":"InternalError","Message":"m"},"RequestId":"r-1"}}'
    headers = "Content-Type: application/json; charset=utf-8\r\n"
    async with peer(saying(body, headers=headers)) as (url, _), client_of(url) as client:
        call = (await ask(client)).call

    assert (call.error_code, call.request_id, call.bytes_received) == ("InternalError", "r-1", len(body))


@pytest.mark.parametrize("value", ["", "identity", "Identity"])
async def test_answer_without_compression_is_read(value: str) -> None:
    async with peer(saying(SUCCESS, headers=f"Content-Encoding: {value}\r\n")) as (url, _):
        assert await error_code_at(url) is None


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_redirect_is_not_followed(status: str) -> None:
    async with peer(saying(SUCCESS)) as (elsewhere, received):
        headers = f"Location: {elsewhere}/\r\n"
        async with peer(saying(b"", status=status, headers=headers)) as (url, _):
            assert await error_code_at(url) == f"http.{status[:3]}"

    assert received == []


@pytest.mark.parametrize(
    ("speak", "code"),
    [
        (saying(SUCCESS, status="503 Service Unavailable"), "http.503"),
        (saying(b"", status="204 No Content"), "http.204"),
        (saying(SUCCESS, status="204 No Content"), codes.CONNECTION_FAILED),
        (closing(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"), "http.101"),
        (saying(b"\x1f\x8b" + bytes(100), headers="Content-Encoding: gzip\r\n"), codes.UNREADABLE),
        (saying(SUCCESS, headers="Content-Encoding: br\r\n"), codes.UNREADABLE),
        (saying(b""), codes.UNREADABLE),
        (saying(b"<html>"), codes.UNREADABLE),
        (saying(SUCCESS[:-1]), codes.UNREADABLE),
        (saying(b'{"Response":{"DetectInfo":null'), codes.UNREADABLE),
        (saying(b'{"BestFrame":"' + b"A" * 9000), codes.UNREADABLE),
        (saying(b'{"BestFrame":"' + b"?" * 9000), codes.UNREADABLE),
        (saying(b"[" * 10_000), codes.UNREADABLE),
        (saying(b'{"Response":{"DetectInfo":{"Text":{"New":"%b"}}}}' % (b"x" * 2**20)), codes.TOO_LARGE),
        (saying(b"\xff" * 1000), codes.UNREADABLE),
        (saying(SUCCESS, length=len(SUCCESS) - 1), codes.CONNECTION_FAILED),
        (closing(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + SUCCESS[:50]), codes.CONNECTION_FAILED),
        (closing(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"), codes.CONNECTION_FAILED),
        (closing(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n{"), codes.CONNECTION_FAILED),
        (closing(b"HTTP/1.1 200"), codes.CONNECTION_FAILED),
        (closing(b"SSH-2.0-OpenSSH_9.6\r\n"), codes.CONNECTION_FAILED),
        (closing(b""), codes.CONNECTION_FAILED),
        (repeating(b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n" * 100), codes.CONNECTION_FAILED),
    ],
)
async def test_malformed_response_has_an_error_code(speak: Speak, code: str) -> None:
    async with peer(speak) as (url, _):
        assert await error_code_at(url) == code


@pytest.mark.parametrize(
    "head",
    [
        f"HTTP/1.1 200 OK\r\nContent-Length: {ENDLESS}\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: ",
        "",
    ],
    ids=["body", "unannounced", "header", "nothing"],
)
async def test_slow_response_ends_at_the_deadline(head: str) -> None:
    async with peer(repeating(head.encode(), b" " if head else b"", pause=0.01)) as (url, _):
        assert await error_code_at(url, seconds=0.3) == codes.TIMED_OUT


@pytest.mark.parametrize("pause", [0, 0.01])
async def test_endless_informational_responses_end_at_the_deadline(pause: float) -> None:
    async with peer(repeating(b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 50, pause=pause)) as (url, _):
        assert await error_code_at(url, seconds=0.3) == codes.TIMED_OUT


async def test_timed_out_call_frees_its_connection() -> None:
    speeches = iter([repeating(b"HTTP/1.1 200 OK\r\n\r\n", b" ", pause=0.01)] * 3 + [saying(SUCCESS)])

    async def speak(writer: asyncio.StreamWriter) -> None:
        await next(speeches)(writer)

    async with peer(speak) as (url, _), client_of(url, seconds=0.2) as client:
        seen = [(await ask(client)).call.error_code for _ in range(4)]

    assert seen == [codes.TIMED_OUT] * 3 + [None]


@pytest.mark.parametrize("head", [f"HTTP/1.1 200 OK\r\nContent-Length: {ENDLESS}\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"])
async def test_body_above_the_size_limit_is_an_error(head: str) -> None:
    async with peer(repeating(head.encode(), bytes(50_000))) as (url, _):
        assert await error_code_at(url, max_bytes=200_000) == codes.TOO_LARGE


async def test_body_as_large_as_the_size_limit_is_read() -> None:
    body = SUCCESS + b" " * (5000 - len(SUCCESS))
    async with peer(saying(body)) as (url, _):
        assert await error_code_at(url, max_bytes=5000) is None
        assert await error_code_at(url, max_bytes=4999) == codes.TOO_LARGE


async def test_refused_connection_has_an_error_code() -> None:
    async with peer(saying(SUCCESS)) as (url, _):
        pass

    assert await error_code_at(url) == codes.CONNECTION_FAILED


async def test_proxies_of_the_environment_are_ignored(faceid: LiveSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    async with peer(saying(SUCCESS)) as (proxy, received):
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy)
        assert await error_code_at(faceid.url) is None

    assert received == []


async def test_connection_is_reused() -> None:
    connections = set()

    async def speak(writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        await saying(SUCCESS)(writer)

    async with peer(speak) as (url, received), client_of(url) as client:
        for _ in range(3):
            assert (await ask(client)).call.error_code is None

    assert (len(connections), len(received)) == (1, 3)


async def test_exception_of_a_sink_is_passed_on(faceid: LiveSimulator) -> None:
    def fail() -> Kept:
        raise UnavailableError("The disk is full.")

    async with client_of(faceid.url) as client:
        with pytest.raises(UnavailableError, match="disk is full"):
            await client.get_detect_info(biz_token="passed", rule_id="1", info_type=InfoType("0"), open_sink=fail)

        assert (await ask(client)).call.error_code is None


async def test_memory_does_not_grow_with_the_media() -> None:
    """At most four pieces of 512 KiB exist: received, parsed, decoded, and the one before."""
    video_bytes = 12_000_000
    document = detect_info(Subject(biz_token="t"), Scenario(), parts=set("1234"), video_bytes=video_bytes)
    body = memoryview(json.dumps({"Response": {"DetectInfo": document, "RequestId": "r-1"}}).encode())
    del document
    sinks: list[Counted] = []

    def open_sink() -> Counted:
        sinks.append(Counted())
        return sinks[-1]

    async def speak(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        for start in range(0, len(body), 16_384):
            writer.write(body[start : start + 16_384])
            await writer.drain()

    async with peer(speak) as (url, _), client_of(url) as client:
        tracemalloc.start()
        fetched = await client.get_detect_info(biz_token="t", rule_id="1", info_type=InfoType("0"), open_sink=open_sink)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert (fetched.call.error_code, fetched.call.bytes_received) == (None, len(body))
    assert sinks[-1].size == video_bytes
    assert peak < 2_100_000


async def test_secrets_and_personal_data_are_absent_from_repr_and_logs(
    faceid: LiveSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    credentials = KeyPair("AKIDSIMULATOR", KEY, "a-token-to-keep-secret")
    caplog.set_level(logging.DEBUG)
    async with client_of(faceid.url, credentials) as client, client_of(faceid.url) as good:
        fetched = [await ask(client, "passed-biz-token"), await ask(good, "passed-biz-token")]

    settings = FaceIdSettings(tencentcloud_secret_key=SecretStr(KEY), tencentcloud_token=SecretStr(KEY))
    shown = f"{caplog.text} {client!r} {vars(client)!r} {settings!r} {settings.all_accounts!r} {fetched!r}"
    detection = fetched[1].detection
    assert detection is not None
    for secret in (KEY, credentials.token, "passed-biz-token", detection.id_card, detection.name):
        assert secret
        assert secret not in shown


@pytest.mark.parametrize(
    "endpoint", ["", "ftp://host", "http://", "https://host:port", "https://id:key@host", "http://[::1"]
)
def test_invalid_endpoint_is_an_error(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="FACEID_ENDPOINT must be a host name"):
        client_of(endpoint)


async def test_host_name_means_tls_and_a_path_is_ignored(faceid: LiveSimulator) -> None:
    assert await error_code_at(f"{faceid.url}/some/path?x=y#z") is None
    assert await error_code_at(f"https://{faceid.endpoint}") == codes.CONNECTION_FAILED
    assert await error_code_at(faceid.endpoint) == codes.CONNECTION_FAILED


@pytest.mark.parametrize("name", ["tencentcloud_secret_id", "tencentcloud_secret_key", "tencentcloud_token"])
@pytest.mark.parametrize("value", ["hunter2\n", "hunter2\r\nX: y", "密hunter2", "hunter2 "])
def test_credential_that_fits_no_header_is_rejected_and_not_quoted(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as raised:
        FaceIdSettings.model_validate({name: value})

    assert name in str(raised.value)
    assert "hunter2" not in str(raised.value)
