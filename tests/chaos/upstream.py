"""The FaceID endpoint of a run: the simulator behind an unreliable connection."""

import asyncio
import socket
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from simulator.options import SimulatorOptions
from simulator.server import create_simulator
from tests.chaos.plan import FaultKind

# Slightly more than the sample video has.
VIDEO_BYTES = 720_000
_LATE_SECONDS = 1.5
# Longer than the timeout of the processes.
_HANG_SECONDS = 6.0
# In an answer of this size the middle byte belongs to a media item.
_LARGE_BYTES = 100_000


def _error(code: str) -> Response:
    error = {"Response": {"Error": {"Code": code, "Message": "chaos"}, "RequestId": "chaos"}}
    return JSONResponse(error)


_ANSWERS = {
    FaultKind.GATEWAY: PlainTextResponse("bad gateway", 502),
    FaultKind.THROTTLE: _error("RequestLimitExceeded"),
    FaultKind.ARREARS: _error("UnauthorizedOperation.Arrears"),
}
_DELAYS = {FaultKind.LATE: _LATE_SECONDS, FaultKind.HANG: _HANG_SECONDS}


class Upstream:
    """An ASGI application: the simulator, with faults. `met` counts the calls that met a fault."""

    def __init__(self) -> None:
        self.simulator = create_simulator(SimulatorOptions(video_bytes=VIDEO_BYTES))
        self.simulator.ledger.entries = deque()  # keeps all
        self.met: Counter[FaultKind] = Counter()
        self.url = ""
        self._server: _Server | None = None
        self._until: dict[FaultKind, float] = {}

    def break_for(self, kind: FaultKind, seconds: float) -> None:
        """Starts a fault that lasts so many seconds."""
        if kind is FaultKind.CUT:
            self._cut()
        else:
            self._until[kind] = time.monotonic() + seconds

    def mend(self) -> None:
        """Ends all faults."""
        self._until.clear()

    def _cut(self) -> None:
        for connection in list(self._server.server_state.connections) if self._server else ():
            transport = getattr(connection, "transport", None)
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()
                self.met[FaultKind.CUT] += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one call, with the current fault if there is one."""
        now = time.monotonic()
        fault = next((kind for kind, until in self._until.items() if now < until), None)
        if fault:
            self.met[fault] += 1
        if fault in _ANSWERS:
            await _ANSWERS[fault](scope, receive, send)
            return
        await asyncio.sleep(_DELAYS.get(fault, 0) if fault else 0)
        await self.simulator(scope, receive, _spoiled(send) if fault is FaultKind.GARBAGE else send)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """Serves the application at `url` during the block."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            config = uvicorn.Config(
                self, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
            )
            self._server = _Server(config)
            task = asyncio.create_task(self._server.serve(sockets=[listener]))
            try:
                yield
            finally:
                self._server.should_exit = True
                await task


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signal handlers unchanged."""
        yield


def _spoiled(send: Send) -> Send:
    """Changes the content of every body and keeps its length."""

    async def spoil(message: Message) -> None:
        body: bytes = message.get("body", b"")
        half = len(body) // 2
        if len(body) > _LARGE_BYTES:
            message["body"] = body[:half] + b"!" + body[half + 1 :]
        elif body:
            message["body"] = b"\0" * len(body)
        await send(message)

    return spoil
