"""Network addresses, as sockets and proxies report them."""

import ipaddress

_IPV6_NETWORK_BITS = 64

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_address(text: str | None) -> Address | None:
    """Returns an address without its zone; None if it is unknown or malformed. IPv4 within IPv6 becomes IPv4."""
    try:
        known = ipaddress.ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    # A dual-stack socket reports IPv4 clients as ::ffff:192.0.2.1.
    return getattr(known, "ipv4_mapped", None) or known


def network_of(text: str | None) -> str | None:
    """Returns the network that one sender controls: an IPv4 address, or 64 bits of IPv6. None for a malformed one."""
    known = parse_address(text)
    if known is None:
        return None
    bits = _IPV6_NETWORK_BITS if isinstance(known, ipaddress.IPv6Address) else known.max_prefixlen
    return str(ipaddress.ip_network((known, bits), strict=False))
