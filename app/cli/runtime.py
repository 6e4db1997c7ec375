"""Settings, services and the event loop of a command."""

import asyncio
import getpass
import signal
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import uvicorn

from app.config import Settings, read_settings
from app.domain.api_key import OPERATOR, Actor
from app.factory import Services, open_services
from app.observability import configure_logging

T = TypeVar("T")


def load_settings(*, is_logged: bool = False) -> Settings:
    """Reads the settings and configures logging.

    Args:
        is_logged: whether to log at the level of the settings. Other commands report by their output alone.

    Raises:
        ConfigurationError: a setting is invalid.
    """
    settings = read_settings()
    configure_logging(settings.process.log_level if is_logged else "CRITICAL")
    return settings


def operator() -> Actor:
    """Returns the actor for the audit: the operator, by the user name of the process."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        # The user id of a container may have no name.
        name = OPERATOR.name
    return Actor(caller=replace(OPERATOR, name=name), request_id=uuid.uuid4().hex)


def event_loop() -> asyncio.Runner:
    """Creates an event loop of the kind that the server uses."""
    return asyncio.Runner(loop_factory=uvicorn.Config("", log_config=None, workers=1).get_loop_factory())


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs the work in a new event loop. Ctrl-C cancels it, so its cleanup still runs."""
    with event_loop() as runner:
        return runner.run(work())


def run_with(settings: Settings, work: Callable[[Services], Awaitable[T]]) -> T:
    """Runs the work with open services, which are closed afterwards."""

    async def open_and_work() -> T:
        async with open_services(settings) as services:
            return await work(services)

    return run(open_and_work)


def run_until_stopped(work: Callable[[], Coroutine[Any, Any, int | None]]) -> int:
    """Runs the work until it ends, or until SIGTERM or the end of the terminal cancels it.

    Returns:
        The exit code of the work, 0 if a signal stopped it.
    """

    @cache
    def stop(task: asyncio.Task[Any]) -> None:
        # Cached, so a second signal does not cancel the cleanup.
        task.cancel()

    async def stoppable() -> int | None:
        task = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Under nohup SIGHUP is ignored and must stay so.
            if task and signal.getsignal(number) is signal.SIG_DFL:
                asyncio.get_running_loop().add_signal_handler(number, stop, task)
        return await work()

    try:
        return run(stoppable) or 0
    except asyncio.CancelledError:
        return 0
