"""The FaceID that the service asks: the simulator, and a bad line in front of it."""

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

VIDEO_BYTES = 720_000  # hardly more than the sample itself has
_LATE_SECONDS = 1.5
_HANG_SECONDS = 6.0  # beyond the deadline that the processes are given
_LARGE_BYTES = 100_000  # an answer of this size has the middle of a medium in its middle


def _refusing(code: str) -> Response:
    refusal = {"Response": {"Error": {"Code": code, "Message": "chaos"}, "RequestId": "chaos"}}
    return JSONResponse(refusal)


_ANSWERS = {
    FaultKind.GATEWAY: PlainTextResponse("bad gateway", 502),
    FaultKind.THROTTLE: _refusing("RequestLimitExceeded"),
    FaultKind.ARREARS: _refusing("UnauthorizedOperation.Arrears"),
}
_DELAYS = {FaultKind.LATE: _LATE_SECONDS, FaultKind.HANG: _HANG_SECONDS}


class Upstream:
    """An ASGI application: the simulator, unless something is going wrong. `met` counts the calls that met a fault."""

    def __init__(self) -> None:
        self.simulator = create_simulator(SimulatorOptions(video_bytes=VIDEO_BYTES))
        self.simulator.ledger.entries = deque()  # all of them
        self.met: Counter[FaultKind] = Counter()
        self.url = ""
        self._server: _Server | None = None
        self._until: dict[FaultKind, float] = {}

    def break_for(self, kind: FaultKind, seconds: float) -> None:
        """Lets it go wrong for that long."""
        if kind is FaultKind.CUT:
            self._cut()
        else:
            self._until[kind] = time.monotonic() + seconds

    def mend(self) -> None:
        """Ends all that goes wrong."""
        self._until.clear()

    def _cut(self) -> None:
        for connection in list(self._server.server_state.connections) if self._server else ():
            transport = getattr(connection, "transport", None)
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()
                self.met[FaultKind.CUT] += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one call, or fails to."""
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
        """Serves it at `url` for as long as the block runs."""
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
        """Leaves them alone."""
        yield


def _spoiled(send: Send) -> Send:
    """Every body keeps its length and is not what it was."""

    async def spoil(message: Message) -> None:
        body: bytes = message.get("body", b"")
        half = len(body) // 2
        if len(body) > _LARGE_BYTES:
            message["body"] = body[:half] + b"!" + body[half + 1 :]
        elif body:
            message["body"] = b"\0" * len(body)
        await send(message)

    return spoil
