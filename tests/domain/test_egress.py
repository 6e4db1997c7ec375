"""Egress: forbidden addresses by their kind, networks that a setting opens, and hosts with several addresses."""

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.egress import parse_networks, refusal
from tests.support.addresses import NEVER, OPENABLE

PUBLIC = ["8.8.8.8", "119.29.29.29", "172.32.0.1", "2606:4700::1111", "240e::1"]
EVERYTHING = parse_networks("127.0.0.0/8, ::1/128 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 fc00::/7")
LOOPBACK = parse_networks("127.0.0.0/8")


def of(
    *addresses: str, is_encrypted: bool = True, allowed: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
) -> str | None:
    return refusal(map(ipaddress.ip_address, addresses), allowed, is_encrypted=is_encrypted)


@pytest.mark.parametrize("address", NEVER.values(), ids=NEVER)
def test_special_address_is_refused_even_if_all_networks_are_allowed(address: str) -> None:
    assert re.fullmatch(r".+ is .+, which webhooks never reach\.", of(address, allowed=EVERYTHING) or "")


@pytest.mark.parametrize("address", OPENABLE)
@pytest.mark.parametrize("is_encrypted", [True, False])
def test_private_address_is_reached_only_if_its_network_is_allowed(address: str, is_encrypted: bool) -> None:
    assert (of(address) or "").endswith("To reach it, the operator adds its network to WEBHOOK_ALLOWED_NETWORKS.")
    assert of(address, allowed=EVERYTHING, is_encrypted=is_encrypted) is None


@pytest.mark.parametrize("address", PUBLIC)
def test_public_address_is_reached_with_encryption_only(address: str) -> None:
    assert of(address) is None
    assert (
        of(address, is_encrypted=False) == f"Use https: {address} is outside the networks of WEBHOOK_ALLOWED_NETWORKS."
    )


def test_one_forbidden_address_refuses_the_whole_host() -> None:
    assert of("8.8.8.8", "10.0.0.1") == of("10.0.0.1")
    assert of("8.8.8.8", "169.254.169.254", allowed=EVERYTHING) == of("169.254.169.254")
    assert of("127.0.0.1", "10.0.0.1", allowed=LOOPBACK) == of("10.0.0.1")


@given(st.ip_addresses())
def test_allowed_network_opens_nothing_outside_it(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    inside = any(address in network for network in LOOPBACK)

    assert inside or of(str(address), allowed=LOOPBACK) == of(str(address))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.0.0.0/8 nonsense", "written like"),
        ("10.0.0.1/8", "written like"),
        ("0.0.0.0/0", "only private"),
        ("::/0", "only private"),
        ("169.254.0.0/16", "only private"),
        ("10.0.0.0/7", "only private"),
        ("8.8.8.0/24", "only private"),
    ],
)
def test_network_of_another_kind_cannot_be_allowed(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_networks(text)


def test_networks_are_separated_by_blanks_or_commas() -> None:
    assert [str(network) for network in parse_networks(" 10.1.0.0/16,fd00::/8  127.0.0.1 ")] == [
        "10.1.0.0/16",
        "fd00::/8",
        "127.0.0.1/32",
    ]
    assert parse_networks("") == ()
