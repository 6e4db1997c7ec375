"""Reads events in the order of their positions: the change feed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from app import tasks
from app.domain.api_key import Actor, Scope
from app.domain.events import Event, EventFilter
from app.domain.rate import RateClass
from app.errors import GoneError, ServiceError
from app.services.api_keys import ApiKeyService
from app.services.batching import Batcher
from app.services.limits import LimitService
from app.services.visibility import require_client, require_scope
from app.storage.database import Database, Transaction
from app.storage.wakeups import POSITIONS, Wakeups, topic_of

NEWEST_EXAMINED = 20_000
"""The newest events that are examined for those of a type."""

# A lost wake-up costs a waiting caller no more than this.
_POLL_SECONDS = 1.0
# A filter of types skips other events, and one request examines at most so many.
_MAX_EXAMINED = 100_000


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in order. The next page begins behind `next_after`. `is_end`: there are no further events so far."""

    events: Sequence[Event]
    next_after: int
    is_end: bool


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A page that a caller wants: at most `limit` events behind the position `after`."""

    events: EventFilter
    after: int
    limit: int


@dataclass(kw_only=True, repr=False, eq=False)
class EventService:
    """Reads events for a caller: those of its own client, for an admin of all."""

    database: Database
    wakeups: Wakeups
    api_keys: ApiKeyService
    limits: LimitService
    _load_one: Batcher[_Wanted, EventPage] = field(init=False)

    def __post_init__(self) -> None:
        self._load_one = Batcher(self._load_batch)

    async def list(
        self, actor: Actor, wanted: EventFilter, *, after: int = 0, limit: int, wait_seconds: float = 0
    ) -> EventPage:
        """Returns the events behind the position `after`; 0 means from the oldest that is kept.

        A page without events waits for the next one, at most `wait_seconds` or until the process stops. The key is
        checked again before it is returned. Cancel the call when the caller has disconnected.

        Raises:
            ForbiddenError: the caller cannot see the wanted client's verifications.
            GoneError: events behind the position are no longer kept, or the position is of another database.
            TooManyRequestsError: the caller has exceeded its rate.
            TooManyWaitsError: the caller, or the process, holds too many waits.
            UnauthenticatedError: the key has ended in the meantime.
        """
        self.limits.admit(actor.caller, RateClass.LISTS)
        wanted = visible_events(actor, wanted)
        page = await self.load(wanted, after, limit)
        if page.events or not wait_seconds:
            return page
        end = time.monotonic() + wait_seconds
        topic = POSITIONS if wanted.client is None else topic_of(wanted.client)
        with self.limits.waiting(actor.caller), self.wakeups.subscribed(topic) as changed:
            while not self.wakeups.is_over and not page.events and (left := end - time.monotonic()) > 0:
                if page.is_end:
                    await tasks.wait_for(changed, min(left, _POLL_SECONDS))
                    changed.clear()
                await self.api_keys.confirm(actor)
                page = await self.load(wanted, page.next_after, limit)
        return page

    async def newest(self, actor: Actor, wanted: EventFilter, *, limit: int) -> Sequence[Event]:
        """Returns the newest events that the caller can see, newest first; by type among the newest `NEWEST_EXAMINED`.

        Raises:
            ForbiddenError: the caller lacks `results:read`, or cannot see the wanted client's verifications.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        require_scope(actor.caller, Scope.RESULTS_READ)
        wanted = visible_events(actor, wanted)
        self.limits.admit(actor.caller, RateClass.LISTS)
        async with self.database.read() as tx:
            return await tx.events.newest(wanted, limit=limit, examined=NEWEST_EXAMINED)

    async def load(self, wanted: EventFilter, after: int, limit: int) -> EventPage:
        """Returns a page for a filter that `visible_events` has returned.

        Raises:
            GoneError: see `list`.
        """
        return await self._load_one(_Wanted(wanted, after, limit))

    async def check_position(self, after: int) -> None:
        """Checks that all events behind a position are kept.

        Raises:
            GoneError: they are not, or the position is of another database.
        """
        async with self.database.read() as tx:
            oldest, head = await tx.events.oldest(), await tx.events.head()
        if not _is_kept(after, oldest, head):
            raise _gone(oldest)

    async def _load_batch(self, batch: Sequence[_Wanted]) -> Sequence[EventPage | ServiceError]:
        async with self.database.read() as tx:
            oldest, head = await tx.events.oldest(), await tx.events.head()
            pages = {wanted: await _load(tx, wanted, oldest, head) for wanted in dict.fromkeys(batch)}
        return [pages[wanted] for wanted in batch]


def visible_events(actor: Actor, wanted: EventFilter) -> EventFilter:
    """Returns the filter limited to what the caller can see.

    Raises:
        ForbiddenError: the caller cannot see the wanted client's verifications.
    """
    require_client(actor.caller, wanted.client)
    return replace(wanted, client=wanted.client or actor.caller.visible_client)


async def _load(tx: Transaction, wanted: _Wanted, oldest: int, head: int) -> EventPage | ServiceError:
    """Reads a page. Everything is of one snapshot, so a page that is not full contains all events until its end."""
    if not _is_kept(wanted.after, oldest, head):
        return _gone(oldest)
    after = max(wanted.after, oldest - 1)
    until = min(head, after + _MAX_EXAMINED) if wanted.events.types else head
    events = await tx.events.search(wanted.events, after=after, until=until, limit=wanted.limit)
    next_after = events[-1].position if len(events) == wanted.limit else until
    return EventPage(events, next_after or 0, is_end=next_after == head)


def _is_kept(after: int, oldest: int, head: int) -> bool:
    return after == 0 or oldest - 1 <= after <= head


def _gone(oldest: int) -> GoneError:
    return GoneError(
        "Events behind this position are no longer kept, or it is of another database. The oldest kept position is "
        f"{oldest}. Read again what you need, then continue with after=0.",
        code="position_gone",
    )
