"""Addresses that webhooks may be sent to: public ones, and networks of the operator's own that the settings open.

The list is explicit because `ipaddress.is_global` accepts multicast and the addresses that only translate to others.
"""

import ipaddress
from collections.abc import Iterable

from app.domain.address import Address
from app.domain.api_key import Network

SETTING = "WEBHOOK_ALLOWED_NETWORKS"

_OPENABLE = {
    "127.0.0.0/8": "a loopback address",
    "::1/128": "a loopback address",
    "10.0.0.0/8": "a private address",
    "172.16.0.0/12": "a private address",
    "192.168.0.0/16": "a private address",
    "fc00::/7": "a private address",
    "100.64.0.0/10": "an address of a carrier's network",
}
_METADATA = "the address of a cloud's metadata service"
_SPECIAL = "reserved for special purposes"
_TRANSLATED = "an IPv6 address that leads to an IPv4 address"
_NEVER = {
    # Alibaba's, AWS's and Oracle's. Those of the other clouds, Tencent's among them, are link-local.
    "100.100.100.200/32": _METADATA,
    "fd00:ec2::/32": _METADATA,
    "192.0.0.0/24": _SPECIAL,
    "169.254.0.0/16": "a link-local address, like the metadata services of clouds",
    "fe80::/10": "a link-local address",
    "fec0::/10": "a site-local address",
    "0.0.0.0/8": "an unspecified address",
    "224.0.0.0/4": "a multicast address",
    "ff00::/8": "a multicast address",
    "240.0.0.0/4": _SPECIAL,
    "192.0.2.0/24": "for documentation",
    "198.51.100.0/24": "for documentation",
    "203.0.113.0/24": "for documentation",
    "2001:db8::/32": "for documentation",
    "3fff::/20": "for documentation",
    "198.18.0.0/15": "for benchmarks",
    "192.88.99.0/24": _SPECIAL,
    "::/96": _TRANSLATED,
    "::ffff:0:0/96": _TRANSLATED,
    "::ffff:0:0:0/96": _TRANSLATED,
    "64:ff9b::/96": _TRANSLATED,
    "64:ff9b:1::/48": _TRANSLATED,
    "2002::/16": _TRANSLATED,
    "2001::/23": "for tunnels and special purposes",
    "100::/64": _SPECIAL,
    "5f00::/16": _SPECIAL,
}
_OPENABLE_NETWORKS = [(ipaddress.ip_network(text), words) for text, words in _OPENABLE.items()]
_NEVER_NETWORKS = [(ipaddress.ip_network(text), words) for text, words in _NEVER.items()]


def parse_networks(text: str) -> tuple[Network, ...]:
    """Returns the networks of a setting, which are separated by blanks or commas.

    Raises:
        ValueError: one is malformed, or neither private nor loopback.
    """
    networks = []
    for part in text.replace(",", " ").split():
        try:
            network = ipaddress.ip_network(part)
        except ValueError:
            raise ValueError("each network must be written like 10.0.0.0/8 or fd00::/8") from None
        if not any(_contains(openable, network) for openable, _ in _OPENABLE_NETWORKS):
            raise ValueError("it may contain only private networks, 100.64.0.0/10 and loopback")
        networks.append(network)
    return tuple(networks)


def refusal(addresses: Iterable[Address], allowed: Iterable[Network], *, is_encrypted: bool) -> str | None:
    """Returns why nothing may be sent to a host with these addresses, as one sentence; None if it may.

    One forbidden address refuses the whole host, because a name that leads to both kinds is an attack or a mistake.
    Without encryption only the allowed networks can be reached.
    """
    networks = list(allowed)
    return next((sentence for address in addresses if (sentence := _refusal(address, networks, is_encrypted))), None)


def _refusal(address: Address, allowed: list[Network], is_encrypted: bool) -> str | None:
    openable = _words_for(address, _OPENABLE_NETWORKS)
    # The loopback address of IPv6 lies in a forbidden block.
    if address != ipaddress.IPv6Address("::1") and (never := _words_for(address, _NEVER_NETWORKS)):
        return f"{address} is {never}, which webhooks never reach."
    if openable and not any(address in network for network in allowed):
        return f"{address} is {openable}. To reach it, the operator adds its network to {SETTING}."
    if not is_encrypted and not openable:
        return f"Use https: {address} is outside the networks of {SETTING}."
    return None


def _words_for(address: Address, networks: Iterable[tuple[Network, str]]) -> str | None:
    return next((words for network, words in networks if address in network), None)


def _contains(outer: Network, inner: Network) -> bool:
    return inner.version == outer.version and inner.network_address in outer and inner.broadcast_address in outer
