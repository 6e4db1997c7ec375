"""Runs the real command in processes forked from one that has imported it, which saves a second each."""

import gc
import multiprocessing
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from app.cli import main

BOUND_SECONDS = 30
POLL_SECONDS = 0.02
_STREAMS = {"in": os.O_RDONLY, "out": os.O_WRONLY, "err": os.O_WRONLY}

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.support.command"])


@dataclass(frozen=True)
class Done:
    """The exit code of a command and its output."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Running:
    """A running command."""

    process: ForkServerProcess
    streams: Path

    def read(self, stream: str) -> str:
        """Returns what the command has written to `out` or `err` so far."""
        return self.streams.with_suffix(f".{stream}").read_text()

    def until(self, text: str, stream: str = "out") -> str:
        """Waits until the command has written this text; returns everything that it has written."""
        end = time.monotonic() + BOUND_SECONDS
        while text not in (written := self.read(stream)):
            assert self.process.is_alive(), f"the command ended without {text!r}: {self.read('err')}"
            assert time.monotonic() < end, f"{text!r} was not written"
            time.sleep(POLL_SECONDS)
        return written

    def end(self, number: signal.Signals | None = None) -> Done:
        """Sends the signal, if any, and waits for the end."""
        if number:
            os.kill(self.process.pid or 0, number)
        self.process.join(BOUND_SECONDS)
        assert self.process.exitcode is not None, "the command did not end"
        return Done(self.process.exitcode, self.read("out"), self.read("err"))


@contextmanager
def started(*arguments: str, folder: Path, stdin: Path | None = None, **settings: str) -> Iterator[Running]:
    """Starts the command in the folder with these settings only. Kills it at the end if it still runs."""
    streams = folder / f".streams-{secrets.token_hex(4)}"
    for stream in _STREAMS:
        streams.with_suffix(f".{stream}").touch(0o600)
    process = _processes.Process(target=_act, args=(arguments, folder, stdin, streams, settings))
    process.start()
    try:
        yield Running(process, streams)
    finally:
        process.kill()
        process.join()


def run(*arguments: str, folder: Path, stdin: str = "", **settings: str) -> Done:
    """Runs the command to its end."""
    text = folder / f".stdin-{secrets.token_hex(4)}"
    text.write_text(stdin)
    with started(*arguments, folder=folder, stdin=text, **settings) as running:
        return running.end()


def environment(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Returns the settings with the variables that a process needs, and nothing of the tests' environment."""
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "COLUMNS": "80", **settings}


def _act(
    arguments: Sequence[str], folder: Path, stdin: Path | None, streams: Path, settings: Mapping[str, str]
) -> None:
    # The collector would examine, and thus copy, all memory that this process shares with the one it was forked from.
    gc.freeze()
    settings = environment(folder, settings)
    os.environ.clear()
    os.environ.update(settings)
    os.chdir(folder)
    for descriptor, (stream, flags) in enumerate(_STREAMS.items()):
        path = stdin if stream == "in" and stdin else streams.with_suffix(f".{stream}")
        os.dup2(os.open(path, flags), descriptor)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.argv = ["faceid-results", *arguments]
    # A shell lets its background jobs ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
