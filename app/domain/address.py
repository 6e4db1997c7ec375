"""Network addresses, as sockets and proxies report them."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_address(text: str | None) -> Address | None:
    """Returns an address without its zone; None if it is unknown or malformed. IPv4 within IPv6 becomes IPv4."""
    try:
        known = ipaddress.ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    # A dual-stack socket reports IPv4 clients as ::ffff:192.0.2.1.
    return getattr(known, "ipv4_mapped", None) or known
