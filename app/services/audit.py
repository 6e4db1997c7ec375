"""The audit trail: written before a disclosure, linked to a hash chain, and verified against logged anchors."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from app.domain.address import network_of, parse_address
from app.domain.api_key import Actor, Scope
from app.domain.audit import DONE, GENESIS, Action, AuditFilter, AuditRecord, ChainLink
from app.domain.listing import Rows, decode_row_cursor, encode_row_cursor
from app.domain.rate import RateClass
from app.domain.verification import Verification
from app.errors import ForbiddenError, GoneError, NotFoundError, ServiceError, UnauthenticatedError
from app.observability import Throttle
from app.sealing.keyring import KeyRing, Ring, is_keyed
from app.services.batching import Batcher
from app.services.limits import LimitService, LimitSettings
from app.services.visibility import require_scope
from app.storage.database import Database, Transaction

_BATCH = 1000
# For each address and reason of a refused authentication. A flood must not fill the disk.
_REFUSAL_SECONDS = 600.0
_MAX_REFUSALS = 1000
# The key ring and the database may have different clocks.
_CLOCK_TOLERANCE = timedelta(hours=1)

# At every LOG_LEVEL: without the anchors in the log, only the database itself could prove the chain.
_anchor_log = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))


@dataclass(frozen=True, slots=True)
class ChainReport:
    """The result of a verification: how many links are intact, and the first problem."""

    links: int
    unsealed: int
    last_hash: str
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """How many rows are linked, when the last of them was written, and how many are not linked yet."""

    position: int
    linked_until: datetime | None
    unlinked: int


@dataclass(frozen=True, slots=True)
class AuditRecordPage:
    """A page of records with their BizTokens; `next_cursor` is None on the last one."""

    records: Sequence[tuple[AuditRecord, str | None]]
    next_cursor: str | None


@dataclass(kw_only=True, repr=False, eq=False)
class AuditService:
    """Records, lists, links and verifies. Close it with `aclose`."""

    database: Database
    keyring: KeyRing
    clock: Callable[[], datetime]
    limits: LimitService = field(default_factory=lambda: LimitService(settings=LimitSettings()))
    _end: ChainLink | None = field(init=False, default=None)
    _refusals: Throttle = field(init=False, default_factory=lambda: Throttle(_REFUSAL_SECONDS, _MAX_REFUSALS))
    _tasks: set[asyncio.Task[None]] = field(init=False, default_factory=set)
    _record_one: Batcher[AuditRecord, None] = field(init=False)

    def __post_init__(self) -> None:
        self._record_one = Batcher(self._record_batch)

    async def aclose(self) -> None:
        """Waits for the records that are written in the background."""
        await asyncio.gather(*self._tasks)

    def describe(
        self,
        actor: Actor,
        action: Action,
        *,
        verification: Verification | None = None,
        subject: str | None = None,
        fields: Collection[str] = (),
        outcome: str = DONE,
    ) -> AuditRecord:
        """Returns the record of an action, to be passed to `record` or `record_now`.

        Args:
            actor: who acts.
            action: what happens.
            verification: what it happens to.
            subject: the id of the API key that a key action is about.
            fields: the names of the disclosed, searched or erased fields.
            outcome: how it ended.
        """
        return AuditRecord(
            at=self.clock(),
            who=actor.caller.name,
            key_id=actor.caller.id,
            client=actor.caller.client,
            action=action,
            verification_id=verification.id if verification else None,
            subject=subject,
            fields=" ".join(fields),
            purpose=actor.purpose,
            request_id=actor.request_id,
            outcome=outcome,
        )

    async def record(self, tx: Transaction, *records: AuditRecord) -> None:
        """Writes records in the caller's transaction. The recorded action must happen in it or after its commit."""
        await tx.audit.add(records)

    async def record_now(self, record: AuditRecord) -> None:
        """Writes a record, durable on return, in one transaction with the records that arrive at the same time."""
        await self._record_one(record)

    @asynccontextmanager
    async def recorded_refusals(self, actor: Actor, action: Action, *fields: str) -> AsyncIterator[None]:
        """Records the action if the block refuses it, because there is nothing that the caller may read."""
        try:
            yield
        except (NotFoundError, GoneError) as error:
            await self.record_refusal(error, actor, action, *fields)
            raise

    async def require_recorded(self, actor: Actor, scope: Scope, action: Action) -> None:
        """Checks that the caller has the scope of a disclosure, and records a refusal.

        Raises:
            ForbiddenError: it has not.
        """
        try:
            require_scope(actor.caller, scope)
        except ForbiddenError as error:
            await self.record_refusal(error, actor, action)
            raise

    async def record_refusal(self, error: ServiceError, actor: Actor, action: Action, *fields: str) -> None:
        """Records that the action was refused with this error."""
        await self.record_now(self.describe(actor, action, fields=fields, outcome=error.code))

    def report_refused_authentication(
        self, error: UnauthenticatedError, *, address: str | None, request_id: str
    ) -> None:
        """Records a refused authentication, once per address, reason, key and ten minutes, without the sent text.

        Does not wait: the time of the answer would reveal the reason.
        """
        known = parse_address(address)
        if not self._refusals.admit((network_of(address), error.reason, error.key_id)):
            return
        record = AuditRecord(
            at=self.clock(),
            who="",
            key_id=error.key_id,
            client="",
            action=Action.AUTHENTICATION,
            subject=str(known) if known else None,
            request_id=request_id,
            outcome=error.reason,
        )
        task = asyncio.create_task(self._record_if_possible(record), name="refusal")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _record_if_possible(self, record: AuditRecord) -> None:
        # The database reports its failures itself.
        with suppress(ServiceError):
            await self.record_now(record)

    async def _record_batch(self, records: Sequence[AuditRecord]) -> Sequence[None]:
        async with self.database.write() as tx:
            await self.record(tx, *records)
        return [None] * len(records)

    async def search(
        self, actor: Actor, wanted: AuditFilter, biz_token: str | None, *, limit: int, cursor: str | None
    ) -> AuditRecordPage:
        """Returns a page of records, newest first; with a BizToken, only those about it.

        Raises:
            ForbiddenError: the caller is no admin.
            InvalidRequestError: the cursor is invalid or belongs to another list.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        require_scope(actor.caller, Scope.ADMIN)
        self.limits.admit(actor.caller, RateClass.LISTS)
        before_id = decode_row_cursor(Rows.AUDIT, cursor) if cursor else None
        async with self.database.read() as tx:
            if biz_token is not None:
                rows = await tx.verifications.find_all([biz_token])
                wanted = replace(wanted, verification_ids=frozenset(row.id for row in rows))
            found = await tx.audit.list(wanted, limit=limit + 1, before_id=before_id)
        return AuditRecordPage(
            found[:limit], encode_row_cursor(Rows.AUDIT, found[limit - 1][0].id) if len(found) > limit else None
        )

    async def chain_end(self, actor: Actor) -> ChainEnd:
        """Returns the end of the chain, and how many rows are not linked yet.

        Raises:
            ForbiddenError: the caller is no admin.
        """
        require_scope(actor.caller, Scope.ADMIN)
        async with self.database.read() as tx:
            link = await tx.audit.last_link()
            known = (await tx.audit.records([link.audit_id]) if link else [])[:1]
            unlinked = await tx.audit.count_after(link.audit_id if link else 0)
        return ChainEnd(link.position if link else 0, known[0].at if known else None, unlinked)

    async def link(self) -> int:
        """Links all unlinked rows; returns how many. Logs the new end of the chain, an anchor outside the database."""
        total = 0
        while count := await self._link_batch():
            total += count
        return total

    async def _link_batch(self) -> int:
        async with self.database.write() as tx:
            await tx.audit.stop_writers()
            last = await tx.audit.last_link() or ChainLink(0, 0, GENESIS)
            lost = self._end if self._end and not await tx.audit.has_link(self._end) else None
            links = []
            records = await tx.audit.after(last.audit_id, limit=_BATCH)
            for record in records:
                last = ChainLink(last.position + 1, record.id, self.keyring.link(record.linked_to(last.hash)))
                links.append(last)
            if links:
                await tx.audit.add_links(links)
        if lost:
            # Rows that were changed are linked again now, like new ones. Only the log still has the earlier ends.
            _anchor_log.error("audit_rewritten", position=lost.position, hash=lost.hash.hex())
        self._end = last
        for record in records:
            if record.action is Action.KEY_REVOKED:
                # After the restore of an older backup, the log is the only record of it.
                _anchor_log.info("key_revoked", key_id=record.subject)
        if links:
            _anchor_log.info("audit_sealed", position=last.position, hash=last.hash.hex())
        return len(links)

    async def verify(self, anchors: Mapping[int, str]) -> ChainReport:
        """Walks the chain and compares it with the logged anchors (hash in hex by position)."""
        last, problem = ChainLink(0, 0, GENESIS), None
        versions = self.keyring.versions(Ring.AUDIT)
        keyed_from = versions[0].created_at + _CLOCK_TOLERANCE if versions else None
        while problem is None:
            async with self.database.read() as tx:
                batch = await tx.audit.chain(last.position, limit=_BATCH)
            if not batch:
                break
            for link, record in batch:
                if problem := self._problem(last, link, record, anchors.get(link.position), keyed_from):
                    break
                last = link
        async with self.database.read() as tx:
            unlinked = await tx.audit.first_unlinked(up_to=last.audit_id)
            unsealed = await tx.audit.count_after(last.audit_id)
        if problem is None and unlinked is not None:
            problem = f"Row {unlinked} was inserted after the rows around it were sealed."
        if problem is None and max(anchors, default=0) > last.position:
            problem = f"Everything after position {last.position} was removed, up to {max(anchors)}."
        return ChainReport(last.position, unsealed if problem is None else 0, last.hash.hex(), problem)

    def _problem(
        self,
        last: ChainLink,
        link: ChainLink,
        record: AuditRecord | None,
        anchor: str | None,
        keyed_from: datetime | None,
    ) -> str | None:
        """Returns the fault of a link, if it has one."""
        if link.position != last.position + 1:
            return f"The row at position {last.position + 1} was removed."
        row = f"Row {link.audit_id}, at position {link.position},"
        if record is None:
            return f"{row} was removed."
        fault = None
        if link.audit_id < last.audit_id:
            fault = f"{row} was moved."
        # Links of earlier versions have no key. They end where the first link with a key follows.
        elif not is_keyed(link.hash) and (is_keyed(last.hash) or (keyed_from and record.at > keyed_from)):
            fault = f"{row} was linked without the key ring."
        elif not self.keyring.is_link(link.hash, record.linked_to(last.hash)):
            fault = f"{row} was changed or moved."
        elif anchor is not None and anchor != link.hash.hex():
            fault = f"The chain was rewritten at position {link.position} or before: the log has another seal."
        return fault
