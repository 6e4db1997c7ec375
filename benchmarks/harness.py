"""The processes of a benchmark: the simulator, servers, workers and loads."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import httpx

from app.config import Settings
from benchmarks.figures import cpu_of
from benchmarks.load import Answers, Load
from tests.support.processes import Child, Command, answers, minded
from tests.support.servers import free_ports, script_path
from tests.support.service import environment_of

_HOST = "127.0.0.1"
_ANSWER_SECONDS = 30
_LONGEST_LOAD_SECONDS = 300


@asynccontextmanager
async def simulator(folder: Path, *arguments: str) -> AsyncIterator[httpx.AsyncClient]:
    """Runs a simulator with these arguments and yields a client of it."""
    port = free_port()
    command = [script_path("faceid-results"), "simulate", "--port", str(port), *arguments]
    child = Child("faceid", Command(command, {"PATH": os.environ["PATH"]}, folder, up=partial(answers, _HOST, port)))
    async with minded([child]), _client(port) as client:
        yield client


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its port on this machine, and its process."""

    port: int
    child: Child

    @property
    def cpu(self) -> float:
        """The seconds of CPU that it has used so far."""
        return cpu_of([self.child.pid or 0])


@asynccontextmanager
async def serving(settings: Settings, *arguments: str) -> AsyncIterator[Server]:
    """Runs `faceid-results serve` with these arguments."""
    port = free_port()
    child = _child(settings, "serve", "--port", str(port), *arguments, up=partial(answers, _HOST, port))
    async with minded([child]):
        yield Server(port, child)


@asynccontextmanager
async def python(module: str, *arguments: str) -> AsyncIterator[Server]:
    """Runs `python -m module PORT arguments`, the other side of a comparison."""
    port = free_port()
    command = Command(
        [sys.executable, "-m", module, str(port), *arguments],
        environment(),
        Path.cwd(),
        up=partial(answers, _HOST, port),
    )
    child = Child(module, command)
    async with minded([child]):
        yield Server(port, child)


@asynccontextmanager
async def api(settings: Settings, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """Runs `faceid-results serve` with its worker and yields a client of it."""
    async with serving(settings) as server, _client(server.port) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        yield client


@asynccontextmanager
async def workers(settings: Settings, count: int) -> AsyncIterator[list[Child]]:
    """Runs that many `faceid-results worker` and yields them when all are up. A killed one is started again."""
    children = [_child(settings, "worker", up="worker_started") for _ in range(count)]
    async with minded(children):
        yield children


async def answers_to(load: Load, port: int) -> Answers:
    """Sends a load to a port of this machine and returns the answers.

    Raises:
        RuntimeError: an answer had another status than expected.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.load", str(port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment(),
    )
    async with asyncio.timeout(_LONGEST_LOAD_SECONDS):
        output, _ = await process.communicate(json.dumps(asdict(load)).encode())
    if process.returncode:
        raise RuntimeError("The load failed.")
    return Answers(**json.loads(output))


def free_port() -> int:
    """Returns a port that nobody listens on."""
    return free_ports(["one"])["one"]


def environment() -> dict[str, str]:
    """Returns the environment for a process of a benchmark."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[1])}


def _child(settings: Settings, *arguments: str, up: Callable[[], Awaitable[bool]] | str) -> Child:
    secret = settings.media.aws_secret_access_key
    environment = {
        **environment_of(settings),
        "FACEID_INFO_TYPE": settings.rules.faceid_info_type,
        "ACCEPT_UNKNOWN_RULES": str(settings.rules.accept_unknown_rules),
        "CONSOLE": str(settings.console.console),
        "CALLBACK_SECRETS": settings.signatures.callback_secrets.get_secret_value(),
        "AWS_ENDPOINT_URL": str(settings.media.aws_endpoint_url or ""),
        "AWS_ACCESS_KEY_ID": settings.media.aws_access_key_id or "",
        "AWS_SECRET_ACCESS_KEY": secret.get_secret_value() if secret else "",
    }
    return Child(
        arguments[0],
        Command([script_path("faceid-results"), *arguments], environment, settings.database.data_dir, up=up),
    )


def _client(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{_HOST}:{port}", timeout=_ANSWER_SECONDS, trust_env=False)
