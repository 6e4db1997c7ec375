"""Registers many tokens at once: an installation's first day, or what an outage left behind."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from app.domain import lifecycle
from app.domain.verification import TokenFacts
from app.errors import ServiceError
from app.services.intake import Accepted, IntakeService, Notice
from app.storage.database import Database
from app.storage.wakeups import DUE, Wakeups

# SQLite's other writers check every 0.1 s whether the writer is free; without the pause callbacks would starve.
_PAUSE_SECONDS = 0.12
# Listed one by one; all are counted.
_MAX_REJECTIONS = 1000


@dataclass(frozen=True, slots=True)
class TokenLine:
    """A token to register, and the number of its line. The facts lack the rule if neither file nor option states it."""

    line: int
    biz_token: str
    facts: TokenFacts


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """Why the token of a line was not registered. The reason quotes nothing of the line."""

    line: int
    reason: str


@dataclass(slots=True)
class BackfillSummary:
    """The results of the lines up to `lines`; later lines were not touched."""

    lines: int = 0
    new: int = 0
    known: int = 0
    conflicting: int = 0
    malformed: int = 0
    problems: list[RejectedLine] = field(default_factory=list)


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class BackfillService:
    """Registers batches of tokens, each in one transaction."""

    intake: IntakeService
    database: Database
    wakeups: Wakeups
    clock: Callable[[], datetime]

    async def register(self, client: str, batch: Sequence[TokenLine | RejectedLine], summary: BackfillSummary) -> None:
        """Registers the tokens of a batch for a client and adds the results of all its lines to the summary.

        New tokens are due now, not at the first poll, because their persons were done long ago. Known ones stay as they
        are.

        Raises:
            UnavailableError: the database failed. Nothing of this batch is registered, and the summary is unchanged.
        """
        lines = [line for line in batch if isinstance(line, TokenLine)]
        now = self.clock()
        notices = [
            Notice(
                biz_token=line.biz_token,
                client=client,
                rule_id=line.facts.rule_id,
                at=now,
                change=partial(lifecycle.registered, facts=line.facts, now=now, due_now=True),
            )
            for line in lines
        ]
        registration = asyncio.create_task(self._accept(notices))
        try:
            await asyncio.wait([registration])
        finally:
            # A batch that Ctrl-C interrupts is finished and counted, so the summary matches the database.
            await asyncio.wait([registration])
            self._count(batch, registration.result(), summary)
        if self.database.is_embedded:
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _accept(self, notices: Sequence[Notice]) -> Sequence[Accepted | ServiceError]:
        async with self.database.write() as tx:
            results = await self.intake.accept_all(tx, notices)
        self.wakeups.send(DUE)
        return results

    @staticmethod
    def _count(
        batch: Sequence[TokenLine | RejectedLine],
        results: Sequence[Accepted | ServiceError],
        summary: BackfillSummary,
    ) -> None:
        lines = [line for line in batch if isinstance(line, TokenLine)]
        malformed = [line for line in batch if isinstance(line, RejectedLine)]
        conflicts = [
            RejectedLine(line.line, result.detail)
            for line, result in zip(lines, results, strict=True)
            if isinstance(result, ServiceError)
        ]
        new = sum(isinstance(result, Accepted) and result.is_new for result in results)
        summary.lines = batch[-1].line
        summary.new += new
        summary.known += len(lines) - new - len(conflicts)
        summary.conflicting += len(conflicts)
        summary.malformed += len(malformed)
        rejected = sorted([*malformed, *conflicts], key=lambda problem: problem.line)
        summary.problems += rejected[: _MAX_REJECTIONS - len(summary.problems)]
