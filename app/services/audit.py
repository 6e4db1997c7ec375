"""The audit: written before anything is disclosed, linked to a chain, and verified against what was logged of that."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Required, TypedDict, Unpack

import structlog

from app.domain.access import Caller
from app.domain.audit import GENESIS, Action, Event, EventFilter, Link
from app.domain.verification import Verification
from app.errors import ServiceError, UnavailableError
from app.services.together import Together
from app.storage.audit import AuditStore
from app.storage.database import Database, Transaction

_BATCH = 1000

log = structlog.get_logger()
# Whatever LOG_LEVEL says: without the seals in the log nobody outside the database can vouch for the chain.
_anchor = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))


@dataclass(frozen=True, slots=True)
class Finding:
    """What a verification of the chain came to: how far it is whole, and the first row that is not."""

    links: int
    unsealed: int
    last_hash: str
    trouble: str | None = None


class Facts(TypedDict, total=False):
    """What is known of an event beside who did what."""

    verification: Verification
    subject: str
    fields: Collection[str]
    purpose: str
    request_id: Required[str]
    outcome: str


class AuditService:
    """Records, links, lists and verifies."""

    def __init__(self, *, database: Database, audit: AuditStore, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock
        self._record_one = Together(self._record_all)

    async def record(self, tx: Transaction, caller: Caller, action: Action, **facts: Unpack[Facts]) -> None:
        """Puts it on record in the caller's transaction: what it tells of is to happen after the commit, or in it.

        Raises:
            UnavailableError: it cannot be put on record, so it must not happen.
        """
        await self._add(tx, [self._event(caller, action, facts)])

    async def record_by_itself(self, caller: Caller, action: Action, **facts: Unpack[Facts]) -> None:
        """The same, durable when it returns; together with whoever does so at the same time."""
        await self._record_one(self._event(caller, action, facts))

    async def _record_all(self, events: Sequence[Event]) -> Sequence[None]:
        async with self._database.write() as tx:
            await self._add(tx, events)
        return [None] * len(events)

    async def _add(self, tx: Transaction, events: Sequence[Event]) -> None:
        try:
            await self._audit.add(tx, events)
        except ServiceError:
            raise UnavailableError("The audit cannot be written.") from None

    def _event(self, caller: Caller, action: Action, facts: Facts) -> Event:
        verification = facts.get("verification")
        return Event(
            at=self._clock(),
            who=caller.name,
            key_id=caller.id,
            client=caller.client,
            action=action,
            verification_id=verification.id if verification else None,
            subject=facts.get("subject"),
            fields=" ".join(facts.get("fields", ())),
            purpose=facts.get("purpose"),
            request_id=facts["request_id"],
            outcome=facts.get("outcome", "done"),
        )

    async def list(
        self, wanted: EventFilter, *, limit: int, before_id: int | None
    ) -> Sequence[tuple[Event, str | None]]:
        """The newest events, each with its BizToken."""
        async with self._database.read() as tx:
            return await self._audit.list(tx, wanted, limit=limit, before_id=before_id)

    async def seal(self) -> int:
        """Links all rows that are not linked yet, and logs each end of the chain: an anchor outside the database."""
        total = 0
        while count := await self._seal_batch():
            total += count
        return total

    async def _seal_batch(self) -> int:
        async with self._database.write() as tx:
            await self._audit.stop_writers(tx)
            last = await self._audit.last_link(tx) or Link(0, 0, GENESIS)
            links = []
            for event in await self._audit.after(tx, last.audit_id, limit=_BATCH):
                last = Link(last.position + 1, event.id, event.linked_to(last.hash))
                links.append(last)
            if links:
                await self._audit.add_links(tx, links)
        if links:
            _anchor.info("audit_sealed", position=last.position, hash=last.hash.hex())
        return len(links)

    async def verify(self, seals: Mapping[int, str]) -> Finding:
        """Walks the chain and compares it with the seals that were logged, digests by their positions."""
        last, trouble = Link(0, 0, GENESIS), None
        while trouble is None:
            async with self._database.read() as tx:
                batch = await self._audit.chain(tx, last.position, limit=_BATCH)
            if not batch:
                break
            for link, event in batch:
                if trouble := _trouble(last, link, event, seals.get(link.position)):
                    break
                last = link
        async with self._database.read() as tx:
            unlinked = await self._audit.unlinked(tx, up_to=last.audit_id)
            unsealed = await self._audit.count_after(tx, last.audit_id)
        if trouble is None and unlinked is not None:
            trouble = f"Row {unlinked} was inserted after the rows around it were sealed."
        if trouble is None and max(seals, default=0) > last.position:
            trouble = f"Everything behind position {last.position} was removed, up to {max(seals)}."
        return Finding(last.position, unsealed if trouble is None else 0, last.hash.hex(), trouble)


def _trouble(last: Link, link: Link, event: Event | None, seal: str | None) -> str | None:
    """What is wrong with a link, if anything is."""
    if link.position != last.position + 1:
        return f"The row at position {last.position + 1} was removed."
    if event is None:
        return f"Row {link.audit_id}, at position {link.position}, was removed."
    if link.audit_id < last.audit_id:
        return f"Row {link.audit_id}, at position {link.position}, was moved."
    if event.linked_to(last.hash) != link.hash:
        return f"Row {link.audit_id}, at position {link.position}, was changed or moved."
    if seal is not None and seal != link.hash.hex():
        return f"The chain was rewritten at position {link.position} or before: the log has another seal."
    return None
