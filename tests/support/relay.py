"""A relay between a client and a server, on which a test breaks connections like a network does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

_PIECE_BYTES = 64 * 1024

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@dataclass(eq=False)
class Relay:
    """Forwards connections to the server that `connect` reaches, from a loopback port."""

    connect: Connect
    port: int = 0
    accepted: int = 0
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _is_refusing: bool = False

    def __post_init__(self) -> None:
        self._open.set()

    def refuse(self) -> None:
        """Ends all connections, and every new one as soon as it is made, until `accept`."""
        self._is_refusing = True
        self.close()

    def accept(self) -> None:
        """Ends `refuse`."""
        self._is_refusing = False

    def freeze(self) -> None:
        """Drops everything on the connections that exist now, without closing them. New ones work."""
        self._open.clear()
        self._open = asyncio.Event()
        self._open.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""
        self.accepted += 1
        if self._is_refusing:
            writer.transport.abort()
            return
        gate = self._open
        try:
            server_reader, server_writer = await self.connect()
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, server_writer}
        await asyncio.gather(_pump(reader, server_writer, gate), _pump(server_reader, writer, gate))

    def close(self) -> None:
        """Ends all connections."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@asynccontextmanager
async def relaying(connect: Connect) -> AsyncIterator[Relay]:
    """Runs a relay during the block."""
    relay = Relay(connect)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        relay.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    with suppress(OSError):
        while piece := await reader.read(_PIECE_BYTES):
            if not gate.is_set():
                continue
            writer.write(piece)
            await writer.drain()
    writer.close()
