"""How the service does: whether it can take callbacks in, and what an operator should know of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from app.domain.pause import Pause
from app.errors import SetUpError, UnavailableError
from app.faceid.error_codes import advice
from app.observability import PAUSED, PENDING, PERSONS
from app.storage import schema
from app.storage.database import Database
from app.storage.pauses import PauseStore
from app.storage.results import ResultStore
from app.storage.verifications import VerificationStore

FILING_WARNING, FILING_THRESHOLD = 80_000, 100_000
WARNING_HOURS, ALARM_HOURS = 24, 6  # of Tencent's 72; what is still pending then is in trouble

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Condition:
    """What is paused, and how many pending verifications have less than so many hours left, by the hours."""

    pauses: Sequence[Pause]
    pending: dict[int, int]

    @property
    def warnings(self) -> Sequence[str]:
        """What is not as it should be, and what to do about it, in sentences."""
        return [*map(_sentence, self.pauses), *self._deadlines]

    @property
    def _deadlines(self) -> Sequence[str]:
        return [
            f"{count} pending verifications have less than {hours} h left."
            for hours, count in self.pending.items()
            if count
        ]


class HealthService:
    """Asks the database. Not the media store: while that is away, callbacks can still be taken in and must be."""

    def __init__(
        self,
        *,
        database: Database,
        verifications: VerificationStore,
        pauses: PauseStore,
        results: ResultStore,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._verifications = verifications
        self._pauses = pauses
        self._results = results
        self._clock = clock

    async def check(self) -> Condition:
        """How it is, if callbacks can be taken in.

        Raises:
            UnavailableError: the database does not answer, or has another schema.
        """
        try:
            await schema.require_current(self._database)
        except SetUpError as error:
            raise UnavailableError(error.detail) from None
        return await self.look()

    async def look(self) -> Condition:
        """How it is; the metrics say it as well.

        Raises:
            UnavailableError: the database does not answer.
        """
        now = self._clock()
        async with self._database.read() as tx:
            pauses = await self._pauses.list(tx)
            pending = {
                hours: await self._verifications.count_pending(tx, deadline_before=now + timedelta(hours=hours))
                for hours in (WARNING_HOURS, ALARM_HOURS)
            }
        _measure(condition := Condition(pauses, pending))
        return condition

    async def count_persons(self) -> int:
        """Of how many persons a face is stored. From 100,000 on they are to be filed with the authority.

        Order 19 of the CAC and the MPS (2025), article 15, gives 30 working days for it; the warning comes earlier.
        """
        async with self._database.read() as tx:
            persons = await self._results.count_persons(tx)
        PERSONS.set(persons)
        if persons >= FILING_WARNING:
            report = log.error if persons >= FILING_THRESHOLD else log.warning
            report("persons_to_be_filed", persons=persons)
        return persons

    async def alarm(self) -> None:
        """Logs what an operator should know of."""
        condition = await self.look()
        for pause in condition.pauses:
            log.error("still_paused", **pause.cause, advice=advice(pause.error_code))
        for hours, report in ((ALARM_HOURS, log.error), (WARNING_HOURS, log.warning)):
            if condition.pending[hours]:
                report("deadline_near", pending=condition.pending[hours], hours=hours)


def _sentence(pause: Pause) -> str:
    what = f"Account {pause.account}" if pause.rule_id is None else f"RuleId {pause.rule_id} of account {pause.account}"
    since = f"{pause.paused_at:%Y-%m-%dT%H:%M:%SZ}"
    return f"{what} is paused since {since}: {pause.error_code}. {advice(pause.error_code) or ''}".rstrip()


def _measure(condition: Condition) -> None:
    PAUSED.clear()
    for pause in condition.pauses:
        PAUSED.labels(pause.account, pause.rule_id or "", pause.error_code).set(1)
    for hours, count in condition.pending.items():
        PENDING.labels(hours).set(count)
