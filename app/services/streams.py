"""Streams of events: one reader per process, whose frames all streams share.

The newest events are kept as a ring of frames. A stream remembers its position only: it is sent what follows in the
ring, and pages of the database while its position lies before the ring.
"""

import asyncio
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from app import tasks
from app.domain.api_key import Actor, Caller
from app.domain.events import Event, EventFilter, EventType, forgotten, frame, matches
from app.domain.rate import RateClass
from app.errors import ServiceError, UnauthenticatedError, UnavailableError
from app.observability import STREAMS
from app.services.api_keys import ApiKeyService
from app.services.events import EventService, visible_events
from app.services.limits import LimitService
from app.storage.database import Database
from app.storage.wakeups import POSITIONS, Wakeups

HEARTBEAT = b": still here\n\n"
HEARTBEAT_SECONDS = 15.0
"""A stream without events sends a comment after so many seconds, because balancers close idle connections."""

# A reader that accepts nothing for so long is disconnected. The server buffers 64 KiB before that.
_STUCK_SECONDS = 30.0
# A revoked key is rejected within so many seconds, as everywhere.
_CHECK_SECONDS = 5.0
_POLL_SECONDS = 1.0
_PAGE = 500
# A megabyte. It holds what streams that reconnect after a restart have missed.
_RING = 2000
# A piece of a response; it bounds what a slow reader makes the server buffer.
_MAX_FRAMES = 100
_EVERYTHING = EventFilter()


class Ring:
    """The frames of the newest events, in order. It continues `position`, and holds at most twice `_RING` events."""

    def __init__(self, position: int) -> None:
        self.start = self.end = position
        self._positions: list[int] = []
        self._entries: list[tuple[Event, bytes]] = []

    def add(self, events: Sequence[Event], end: int) -> None:
        """Adds the events up to the position `end`, and removes the oldest ones if there are too many."""
        if erased := {event.verification_id for event in events if event.type is EventType.ERASED}:
            self._forget(erased)
        for event in events:
            self._positions.append(event.position or 0)
            self._entries.append((event, frame(event)))
        self.end = end
        if len(self._entries) > 2 * _RING:
            self.start = self._positions[-_RING - 1]
            del self._positions[:-_RING], self._entries[:-_RING]

    def after(self, position: int, wanted: EventFilter) -> tuple[bytes, int]:
        """Returns the next frames behind a position, and the position until which nothing else is wanted."""
        first = bisect_right(self._positions, position)
        frames = []
        for place in range(first, len(self._entries)):
            event, text = self._entries[place]
            if matches(wanted, event):
                frames.append(text)
                if len(frames) == _MAX_FRAMES:
                    return b"".join(frames), self._positions[place]
        return b"".join(frames), max(position, self.end)

    def _forget(self, verification_ids: Collection[int | None]) -> None:
        """Removes the reference and the verdict of erased verifications from their earlier frames."""
        for place, (event, _) in enumerate(self._entries):
            if event.verification_id in verification_ids:
                less = forgotten(event)
                self._entries[place] = (less, frame(less))


class EventStream:
    """One stream, as its connection sees it. It wakes by a bare future, because an event would double its memory.

    `is_over`: no more events follow. `on_stuck` is called if what `next` has returned is not sent within 30 s.
    """

    __slots__ = (
        *("_is_woken", "_sending_since", "_service", "_waiter", "actor", "check_at", "is_over", "on_stuck", "position"),
        *("quiet_since", "wanted"),
    )

    def __init__(self, service: "StreamService", actor: Actor, wanted: EventFilter) -> None:
        self._service = service
        self._waiter: asyncio.Future[None] | None = None
        self._is_woken = False
        self.actor = actor
        self.wanted = wanted
        self.position = 0
        self.is_over = False
        self.on_stuck: Callable[[], None] = self.end
        self.quiet_since = time.monotonic()
        self.check_at = self.quiet_since + _CHECK_SECONDS
        self._sending_since: float | None = self.quiet_since

    async def next(self) -> bytes | None:
        """Waits for the next frames, or for the time of a heartbeat; returns None at the end of the stream."""
        self._sending_since = None
        frames = await self._wait()
        self._sending_since = time.monotonic()
        return frames

    async def _wait(self) -> bytes | None:
        while not self.is_over:
            self._is_woken = False
            try:
                frames, self.position = await self._service.read(self)
            except ServiceError:
                # The client resumes behind the last event that it has received.
                return None
            now = time.monotonic()
            if not frames and now - self.quiet_since >= HEARTBEAT_SECONDS:
                frames = HEARTBEAT
            if frames:
                self.quiet_since = now
                return frames
            if not self._is_woken:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        return None

    def notice(self, events: Sequence[Event], before: int, end: int) -> None:
        """Wakes the stream if it wants one of the events, which follow the position `before` up to `end`."""
        if any(matches(self.wanted, event) for event in events):
            self.wake()
        elif self.position == before:
            self.position = end

    def wake(self) -> None:
        """Makes `next` look again."""
        self._is_woken = True
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """Ends the stream."""
        self.is_over = True
        self.wake()

    def tend(self, now: float) -> None:
        """Lets `next` return a heartbeat when its time has come, and reports a reader that accepts nothing."""
        if now - self.quiet_since >= HEARTBEAT_SECONDS:
            self.wake()
        if self._sending_since is not None and now - self._sending_since >= _STUCK_SECONDS:
            self._sending_since = None
            self.on_stuck()


@dataclass(kw_only=True, repr=False, eq=False)
class StreamService:
    """Opens streams, and reads events for all of them while there are any."""

    database: Database
    wakeups: Wakeups
    api_keys: ApiKeyService
    limits: LimitService
    events: EventService
    _streams: set[EventStream] = field(init=False, default_factory=set)
    _ring: Ring | None = field(init=False, default=None)
    _start: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _tasks: set[asyncio.Task[None]] = field(init=False, default_factory=set)

    @asynccontextmanager
    async def open(self, actor: Actor, wanted: EventFilter, *, after: int | None) -> AsyncIterator[EventStream]:
        """Opens a stream of the events behind the position `after`, or of those that are still to come.

        It ends with its key, and when the process stops.

        Raises:
            ForbiddenError: the caller cannot see the wanted client's verifications.
            GoneError: events behind the position are no longer kept, or the position is of another database.
            TooManyRequestsError: the caller has exceeded its rate.
            TooManyStreamsError: the key, or the process, already has as many streams as it may.
            UnavailableError: the database does not answer.
        """
        self.limits.admit(actor.caller, RateClass.LISTS)
        stream = EventStream(self, actor, visible_events(actor, wanted))
        with self.limits.streaming(actor.caller):
            # Before the ring is filled: the reader ends when there are no streams.
            self._streams.add(stream)
            STREAMS.set(len(self._streams))
            try:
                ring = await self._running()
                if after is not None and not ring.start <= after <= ring.end:
                    await self.events.check_position(after)
                stream.position = ring.end if after is None else after
                if self.wakeups.is_over:
                    stream.end()
                yield stream
            finally:
                self._streams.discard(stream)
                STREAMS.set(len(self._streams))

    async def read(self, stream: EventStream) -> tuple[bytes, int]:
        """Returns the next frames of a stream, and its new position."""
        ring = self._ring
        if ring and stream.position == ring.end:
            return b"", stream.position
        if ring and stream.position >= ring.start:
            return ring.after(stream.position, stream.wanted)
        while True:
            page = await self.events.load(stream.wanted, stream.position, _MAX_FRAMES)
            if page.events or page.is_end:
                return b"".join(map(frame, page.events)), page.next_after
            stream.position = page.next_after

    async def aclose(self) -> None:
        """Ends all streams and the reader."""
        for stream in self._streams:
            stream.end()
        await tasks.end(*self._tasks)

    async def _running(self) -> Ring:
        """Returns the ring, after filling it and starting the reader if there is none."""
        async with self._start:
            if self._ring is None:
                async with self.database.read() as tx:
                    head, oldest = await tx.events.head(), await tx.events.oldest()
                ring = Ring(max(oldest - 1, head - _RING, 0))
                while await self._extend(ring):
                    pass
                self._ring = ring
                for work in (self._follow(ring), self._tend(ring)):
                    task = asyncio.create_task(work, name="streams")
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
            return self._ring

    async def _follow(self, ring: Ring) -> None:
        """Reads new events and wakes the streams that want them, until there is no stream."""
        try:
            with self.wakeups.subscribed(POSITIONS) as changed:
                while self._streams and not self.wakeups.is_over:
                    changed.clear()
                    with suppress(UnavailableError):
                        while await self._extend(ring):
                            pass
                    await tasks.wait_for(changed, _POLL_SECONDS)
        finally:
            self._ring = None
            for stream in self._streams:
                stream.end()

    async def _extend(self, ring: Ring) -> bool:
        """Adds a page of new events to the ring; returns whether more may follow."""
        before = ring.end
        async with self.database.read() as tx:
            events = await tx.events.search(_EVERYTHING, after=before, until=await tx.events.head(), limit=_PAGE)
        if events:
            ring.add(events, events[-1].position or 0)
            for stream in self._streams:
                stream.notice(events, before, ring.end)
        return len(events) == _PAGE

    async def _tend(self, ring: Ring) -> None:
        """Tends the streams and checks their keys, once a second for the streams whose time has come."""
        while self._ring is ring:
            now = time.monotonic()
            due: dict[tuple[Caller, str | None], list[EventStream]] = {}
            for stream in self._streams:
                stream.tend(now)
                if stream.check_at <= now:
                    stream.check_at = now + _CHECK_SECONDS
                    due.setdefault((stream.actor.caller, stream.actor.address), []).append(stream)
            await asyncio.gather(*map(self._check_key, due.values()))
            await asyncio.sleep(_POLL_SECONDS)

    async def _check_key(self, streams: Sequence[EventStream]) -> None:
        """Ends streams of one key if the key has ended."""
        try:
            await self.api_keys.confirm(streams[0].actor)
        except UnauthenticatedError:
            for stream in streams:
                stream.end()
        except UnavailableError:
            # The next check follows.
            return
