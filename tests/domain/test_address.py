"""Network addresses, and the network that one sender controls."""

import pytest

from app.domain.address import network_of


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", None),
        (None, None),
    ],
)
def test_network_is_one_address_or_64_bits_of_ipv6(address: str | None, network: str | None) -> None:
    assert network_of(address) == network
