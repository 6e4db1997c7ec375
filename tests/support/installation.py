"""The command in a working directory, with settings that point to the simulator."""

import json
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.command import BOUND_SECONDS, POLL_SECONDS, Done, Running, run, started


@dataclass(frozen=True)
class Installation:
    """A working directory, and settings that point to the simulator."""

    folder: Path
    settings: Mapping[str, str]

    def run(self, *arguments: str, stdin: str = "", **overrides: str) -> Done:
        return run(*arguments, folder=self.folder, stdin=stdin, **{**self.settings, **overrides})

    def json(self, *arguments: str, stdin: str = "") -> dict[str, Any]:
        view: dict[str, Any] = json.loads(self.run(*arguments, "--json", stdin=stdin).out)
        return view

    @contextmanager
    def started(self, *arguments: str, stdin: Path | None = None) -> Iterator[Running]:
        with started(*arguments, folder=self.folder, stdin=stdin, **self.settings) as running:
            yield running

    @contextmanager
    def serving(self, *scopes: str) -> Iterator[tuple[Running, httpx.Client]]:
        """Runs the service on a free port; yields it and a client whose key has these scopes."""
        options = [option for scope in scopes for option in ("--scope", scope)]
        key = self.json("keys", "create", "shop", *options)["key"]
        with self.started("serve", "--port", "0") as running:
            (url,) = re.findall(r"Serving on (\S+),", running.until("/docs"))
            with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as api:
                yield running, api

    def await_rows(self, number: int) -> None:
        """Waits until so many verifications are committed."""
        end, rows = time.monotonic() + BOUND_SECONDS, 0
        while rows < number:
            assert time.monotonic() < end
            time.sleep(POLL_SECONDS)
            with (
                suppress(sqlite3.OperationalError),
                closing(sqlite3.connect(self.folder / "data/faceid-results.db")) as db,
            ):
                (rows,) = db.execute("SELECT count(*) FROM verification").fetchone()
