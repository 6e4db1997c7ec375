"""Takes in many tokens at once, due at once: an installation's first day, or what an outage left behind."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from app.domain import lifecycle
from app.domain.verification import Facts
from app.errors import ConflictError
from app.services.newcomers import Newcomers
from app.storage.database import Database, Transaction
from app.storage.signals import DUE, Signals
from app.storage.verifications import VerificationStore

_PAUSE_SECONDS = 0.12  # SQLite's other writers look every 0.1 s whether it is free: callbacks shall not starve
_MOST_PROBLEMS = 1000  # told of one by one; all are counted


@dataclass(frozen=True, slots=True)
class Row:
    """A token to be registered, and the line that it stands on."""

    line: int
    biz_token: str
    rule_id: str
    facts: Facts


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the token of a line was not registered; nothing of the line's text is in it."""

    line: int
    reason: str


@dataclass(slots=True)
class Summary:
    """What has become of the lines up to `lines`; nothing after them was touched."""

    lines: int = 0
    new: int = 0
    known: int = 0
    conflicting: int = 0
    malformed: int = 0
    problems: list[Problem] = field(default_factory=list)


class BackfillService:
    """Registers batches, in a transaction each: a million tokens need not wait for the disk a million times."""

    def __init__(
        self,
        *,
        database: Database,
        newcomers: Newcomers,
        verifications: VerificationStore,
        signals: Signals,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._newcomers = newcomers
        self._verifications = verifications
        self._signals = signals
        self._clock = clock

    async def register(self, client: str, batch: Sequence[Row | Problem], summary: Summary) -> None:
        """Registers the rows of a batch for a client and adds to the summary what became of all its lines.

        New tokens are due now, not at the first poll: their people were done long ago. Known ones stay as they are.

        Raises:
            UnavailableError: the database failed; nothing of this batch is registered, and the summary is as before.
        """
        rows = [row for row in batch if isinstance(row, Row)]
        malformed = [problem for problem in batch if isinstance(problem, Problem)]
        new, conflicts = await self._register_all(client, rows)
        self._signals.send(DUE)
        summary.lines = batch[-1].line
        summary.new += new
        summary.known += len(rows) - new - len(conflicts)
        summary.conflicting += len(conflicts)
        summary.malformed += len(malformed)
        told = sorted([*malformed, *conflicts], key=lambda problem: problem.line)
        summary.problems += told[: _MOST_PROBLEMS - len(summary.problems)]
        if self._database.is_embedded:
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _register_all(self, client: str, rows: Sequence[Row]) -> tuple[int, Sequence[Problem]]:
        new, conflicts = 0, []
        async with self._database.write() as tx:
            for row in sorted(rows, key=lambda row: row.biz_token):  # two backfills at once lock in one order
                try:
                    new += await self._register(tx, client, row)
                except ConflictError as error:
                    conflicts.append(Problem(row.line, error.detail))
        return new, conflicts

    async def _register(self, tx: Transaction, client: str, row: Row) -> bool:
        """Whether the token is new."""
        now = self._clock()
        new = self._newcomers.new(row.biz_token, row.rule_id, now, client=client)
        due = replace(lifecycle.registered(new, row.facts, now), due_at=now)  # and goes after what people wait for
        if await self._verifications.add(tx, due):
            return True
        known = await self._verifications.lock(tx, row.biz_token)
        if known is None or known.client != client:
            raise ConflictError("The token is another client's.")
        await self._verifications.save(tx, known, lifecycle.registered(known, row.facts, now))
        return False
