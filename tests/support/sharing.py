"""Costly things that all processes of a test run share. The first that needs one starts it for all."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")


@contextmanager
def shared(place: Path, kind: type[T], start: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
    """Yields the value of `start`, which runs in one of the processes that name the same place, a file of their own.

    That process waits at its end until the others have left. The value passes between them as JSON.
    """
    with place.open("a+b") as users, place.with_suffix(".lock").open("wb") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        users.seek(0)
        content = users.read()
        with nullcontext(msgspec.json.decode(content, type=kind)) if content else start() as value:
            if not content:
                users.write(msgspec.json.encode(value))
                users.flush()
            fcntl.flock(users, fcntl.LOCK_SH)
            fcntl.flock(door, fcntl.LOCK_UN)
            try:
                yield value
            finally:
                if not content:
                    # The next process waits at the door, and starts it again.
                    fcntl.flock(door, fcntl.LOCK_EX)
                    fcntl.flock(users, fcntl.LOCK_EX)
                    users.truncate(0)
