"""Connections to receivers: the address that is connected to is the one that was checked.

A name may resolve to a harmless address when it is checked and to another one when it is used. So the connection
resolves the name once, checks every address, and connects to one of these. TLS still verifies the certificate by name.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpcore

from app.domain.address import Address
from app.domain.api_key import Network
from app.domain.deliveries import Fault
from app.domain.egress import refusal

CONNECT_SECONDS = 5.0

# A name with more addresses is tried no longer than the others.
_MAX_TRIES = 3
# Threads wait for the resolver of the system, which has no deadline. A name that hangs must not delay others.
_RESOLVER_THREADS = 16

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Returns the addresses of a host. Raises OSError if there are none."""


class ReceiverError(Exception):
    """No connection was made. `detail` explains it in one sentence without quoting the URL."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


class Resolver:
    """The resolver of the system, in threads of its own. Close it with `close`."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="resolver")

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        """Returns the addresses of a host. Numbers such as `2130706433` are read as the system reads them."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(ipaddress.ip_address(address[0]) for *_, address in found))

    def close(self) -> None:
        """Lets the threads end when their look-ups do."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only.

    Args:
        resolve: returns the addresses of a host.
        allowed: the networks of the operator's own that may be reached.
        is_encrypted: whether TLS follows. Without it only the allowed networks can be reached.
    """

    def __init__(self, resolve: Resolve, allowed: Iterable[Network], *, is_encrypted: bool) -> None:
        self._resolve = resolve
        self._allowed = tuple(allowed)
        self._is_encrypted = is_encrypted
        self._sockets = httpcore.AnyIOBackend()

    async def addresses_of(self, host: str, port: int) -> Sequence[Address]:
        """Returns the addresses of a host, all of which may be reached.

        Raises:
            ReceiverError: there are none, or one is forbidden.
        """
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                found = await self._resolve(host, port)
        except TimeoutError:
            raise ReceiverError(Fault.DNS, "The name of the host was not resolved in time.") from None
        except (OSError, UnicodeError):
            raise ReceiverError(Fault.DNS, "The name of the host has no address.") from None
        self._check(found)
        return found

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connects to the first address of the host that accepts, and checks the address of the peer again.

        Raises:
            ReceiverError: the host has no address, or a forbidden one.
            httpcore.ConnectError: no address accepts.
            httpcore.ConnectTimeout: no address answers in time.
        """
        addresses = (await self.addresses_of(host, port))[:_MAX_TRIES]
        error: Exception = httpcore.ConnectError()
        for address in addresses:
            try:
                stream = await self._sockets.connect_tcp(
                    str(address), port, (timeout or CONNECT_SECONDS) / len(addresses), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failure:
                error = failure
                continue
            try:
                self._check([ipaddress.ip_address(stream.get_extra_info("server_addr")[0])])
            except ReceiverError:
                await stream.aclose()
                raise
            return stream
        raise error

    def _check(self, addresses: Sequence[Address]) -> None:
        if sentence := refusal(addresses, self._allowed, is_encrypted=self._is_encrypted):
            raise ReceiverError(Fault.REFUSED_ADDRESS, sentence)
