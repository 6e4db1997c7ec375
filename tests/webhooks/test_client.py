"""The client of webhooks: forbidden addresses are not reached, and an answer costs a bounded time and memory."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.domain.address import Address
from app.domain.deliveries import Answer, Fault
from app.errors import ConfigurationError, InvalidRequestError
from app.webhooks.client import Receiver, WebhookClient, WebhookSettings
from app.webhooks.transport import Resolve
from tests.support.addresses import NEVER, OPENABLE
from tests.support.receiver import Receiver as Server
from tests.support.receiver import answer, receiving
from tests.support.servers import write_certificate

EVERYTHING = "127.0.0.0/8 ::1/128 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 fc00::/7"
HEADERS = {"webhook-id": "evt_1"}
BODY = b'{"id":"evt_1"}'
BOMB = answer(200, b"x" * 5_000_000)


def resolving(*rounds: Sequence[str]) -> Resolve:
    """Returns a resolver that returns other addresses each time, and the last ones from then on."""
    left: Iterator[Sequence[str]] = iter(rounds)
    last: list[Sequence[str]] = []

    async def resolve(_host: str, _port: int) -> Sequence[Address]:
        last[:] = [next(left, last[0] if last else ())]
        return [ipaddress.ip_address(text) for text in last[0]]

    return resolve


@asynccontextmanager
async def sending(
    allowed: str = "", *rounds: Sequence[str], ca_file: Path | None = None, total_seconds: float = 15
) -> AsyncIterator[WebhookClient]:
    settings = WebhookSettings(webhook_allowed_networks=allowed, webhook_ca_file=ca_file)
    client = WebhookClient(settings, resolving(*rounds) if rounds else None, total_seconds=total_seconds)
    try:
        yield client
    finally:
        client.close()


async def post(client: WebhookClient, url: str) -> Answer:
    return await client.send(Receiver.parse(url), HEADERS, BODY)


def without_time(found: Answer) -> Answer:
    return replace(found, duration_ms=0)


async def test_message_arrives_as_it_was_signed(receiver: Server) -> None:
    receiver.answer = lambda _: answer(200, b"thanks")
    async with sending("127.0.0.0/8") as client:
        found = await post(client, receiver.url("/hook?key=1"))

    (message,) = receiver.messages
    assert without_time(found) == Answer(duration_ms=0, status=200, head="thanks", address="127.0.0.1")
    assert (message.target, message.body) == ("/hook?key=1", BODY)
    assert {name: message.headers[name] for name in ("host", "webhook-id", "content-type", "accept-encoding")} == {
        "host": f"127.0.0.1:{receiver.port}",
        "webhook-id": "evt_1",
        "content-type": "application/json; charset=utf-8",
        "accept-encoding": "identity",
    }


async def test_special_addresses_are_refused_however_the_host_is_written() -> None:
    faults = {}
    async with sending(EVERYTHING) as by_number, sending(EVERYTHING, *([text] for text in NEVER.values())) as by_name:
        for kind, text in NEVER.items():
            host = f"[{text}]" if ":" in text else text
            found = [await post(by_number, f"https://{host}/"), await post(by_name, "https://receiver.test/")]
            faults[kind] = [(each.fault, each.address) for each in found]

    assert faults == dict.fromkeys(NEVER, [(Fault.REFUSED_ADDRESS, None)] * 2)


async def test_refusal_of_a_private_address_names_the_setting() -> None:
    async with sending("", *([text] for text in OPENABLE)) as client:
        found = [await post(client, "https://receiver.test/") for _ in OPENABLE]

    assert {each.fault for each in found} == {Fault.REFUSED_ADDRESS}
    assert all("adds its network to WEBHOOK_ALLOWED_NETWORKS." in (each.detail or "") for each in found)


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "localhost", "[::ffff:127.0.0.1]", "[::1]"])
async def test_other_spelling_of_loopback_is_not_reached(receiver: Server, host: str) -> None:
    async with sending() as client:
        found = await post(client, receiver.url(host=host))

    assert (found.fault, receiver.connections) == (Fault.REFUSED_ADDRESS, 0)


async def test_mapped_loopback_is_not_reached_even_if_loopback_is_allowed(receiver: Server) -> None:
    async with sending("127.0.0.0/8") as client:
        found = await post(client, receiver.url(host="[::ffff:127.0.0.1]"))

    assert (found.fault, receiver.connections) == (Fault.REFUSED_ADDRESS, 0)


async def test_name_that_is_rebound_after_the_check_is_not_reached(receiver: Server) -> None:
    url = receiver.url(scheme="https", host="receiver.test")
    async with sending("", ["8.8.8.8"], ["127.0.0.1"]) as client:
        await client.check(Receiver.parse(url))
        with pytest.raises(InvalidRequestError, match="loopback"):
            await client.check(Receiver.parse(url))
        found = await post(client, url)

    assert (found.fault, receiver.connections) == (Fault.REFUSED_ADDRESS, 0)


async def test_name_with_one_forbidden_address_is_not_reached(receiver: Server) -> None:
    async with sending("127.0.0.0/8", ["127.0.0.1", "10.0.0.1"]) as client:
        found = await post(client, receiver.url(host="receiver.test"))

    assert (found.fault, receiver.connections) == (Fault.REFUSED_ADDRESS, 0)


async def test_redirect_is_a_failure_and_is_not_followed(receiver: Server) -> None:
    receiver.answer = lambda _: answer(307, location=receiver.url("/internal"))
    async with sending("127.0.0.0/8") as client:
        found = await post(client, receiver.url())

    assert (found.status, found.fault) == (307, Fault.HTTP_STATUS)
    assert "follow no redirects" in (found.detail or "")
    assert [message.target for message in receiver.messages] == ["/hook"]


async def test_proxy_of_the_environment_is_not_used(receiver: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, receiver.url("/proxy"))
    async with sending("127.0.0.0/8", ["127.0.0.1"]) as client:
        found = await post(client, receiver.url(host="receiver.test"))

    assert (found.status, receiver.messages[0].target) == (204, "/hook")


async def test_certificate_is_verified_by_name(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    trusted = tmp_path / "certificate.pem"
    async with receiving(context) as server:
        right, wrong = (server.url(scheme="https", host=host) for host in ("127.0.0.1", "receiver.test"))
        async with sending("127.0.0.0/8", ["127.0.0.1"], ca_file=trusted) as client:
            found = [await post(client, right), await post(client, wrong)]
        async with sending("127.0.0.0/8") as stranger:
            found.append(await post(stranger, right))

    assert [(each.status, each.fault) for each in found] == [(204, None), (None, Fault.TLS), (None, Fault.TLS)]
    assert len(server.messages) == 1
    assert all((each.detail or "").startswith("The certificate was rejected: ") for each in found[1:])


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (answer(500, b"broken"), Fault.HTTP_STATUS),
        (answer(404), Fault.HTTP_STATUS),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Fault.INVALID_ANSWER),
        (b"HTTP/1.1 204 No Content\r\n" + b"x: y\r\n" * 100_000, Fault.INVALID_ANSWER),
    ],
)
async def test_bad_answer_is_a_typed_fault(receiver: Server, reply: bytes, fault: Fault) -> None:
    receiver.answer = lambda _: reply
    async with sending("127.0.0.0/8") as client:
        found = await post(client, receiver.url())

    assert found.fault is fault


async def test_silent_and_absent_receivers_are_typed_faults(receiver: Server) -> None:
    receiver.answer = lambda _: None
    async with sending("127.0.0.0/8", total_seconds=0.2) as client:
        silent = await post(client, receiver.url())
        absent = await post(client, "http://127.0.0.1:1/")
    async with sending("127.0.0.0/8") as client:
        unknown = await post(client, "https://receiver.invalid/")

    assert [found.fault for found in (silent, absent, unknown)] == [Fault.TIMEOUT, Fault.CONNECT, Fault.DNS]


async def test_endless_answer_is_read_up_to_a_limit(receiver: Server) -> None:
    receiver.answer = lambda _: BOMB
    async with sending("127.0.0.0/8") as client:
        found = await post(client, receiver.url())

    assert (found.status, found.fault, found.head) == (200, None, "x" * 2048)


async def test_head_of_an_answer_has_no_control_characters(receiver: Server) -> None:
    receiver.answer = lambda _: answer(200, b"a\x00\x1b[2J\xff\xe2\x80\xaeb\n\xe5\xbc\xa0")
    async with sending("127.0.0.0/8") as client:
        found = await post(client, receiver.url())

    assert found.head == "a[2J\ufffdb\n张"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("120.5", 120.5),
        ("Thu, 26 Nov 2020 08:00:00 GMT", 0),
        ("soon", None),
        ("-1", None),
        ("9" * 400, None),
    ],
)
async def test_retry_after_is_seconds_or_a_date(receiver: Server, value: str, seconds: float | None) -> None:
    receiver.answer = lambda _: answer(503, retry_after=value)
    async with sending("127.0.0.0/8") as client:
        found = await post(client, receiver.url())

    assert found.retry_after == (None if seconds is None else timedelta(seconds=seconds))


async def test_each_message_has_a_connection_whose_address_was_checked(receiver: Server) -> None:
    async with sending("127.0.0.0/8") as client:
        await asyncio.gather(*(post(client, receiver.url()) for _ in range(3)))

    assert [message.headers["connection"] for message in receiver.messages] == ["close"] * 3
    assert (len(receiver.messages), receiver.connections) == (3, 3)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://receiver.test/",
        "receiver.test",
        "https://",
        "https:///path",
        "https://user:secret@receiver.test/",
        "https://receiver.test/#part",
        "https://receiver.test:0/",
        "https://receiver.test:65536/",
        "https://receiver .test/",
        "https://receiver.test%00.example/",
        "https://0177.0.0.1/",
        "https://[fe80::1%25eth0]/",
        "https://①②⑦.0.0.1/",
        "https://a..b/",
        "https://receiver.test/" + "x" * 2048,
        "https://receiver.test/\n",
    ],
)
def test_malformed_url_is_rejected_without_quoting_it(url: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^The URL ") as error:
        Receiver.parse(url)

    assert "receiver" not in error.value.detail


def test_host_of_a_url_is_shown_in_ascii() -> None:
    assert Receiver.parse("https://bücher.test:8443/secret").host == "xn--bcher-kva.test"


@pytest.mark.parametrize("text", ["nonsense", "0.0.0.0/0", "169.254.0.0/16"])
def test_wrong_network_in_the_setting_is_rejected(text: str) -> None:
    with pytest.raises(ValidationError):
        WebhookSettings(webhook_allowed_networks=text)


@pytest.mark.parametrize("content", [None, b"x"])
def test_unreadable_certificates_are_an_error_that_names_the_setting(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content:
        path.write_bytes(content)

    with pytest.raises(ConfigurationError, match="WEBHOOK_CA_FILE cannot be read as PEM"):
        WebhookClient(WebhookSettings(webhook_ca_file=path))
