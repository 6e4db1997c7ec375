"""The audit trail: written before a disclosure, linked to a hash chain, and verified against logged anchors."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog

from app.domain.api_key import Actor
from app.domain.audit import GENESIS, Action, AuditFilter, AuditRecord, ChainLink
from app.domain.listing import decode_audit_cursor, encode_audit_cursor
from app.domain.verification import Verification
from app.services.batching import Batcher
from app.storage.database import Database, Transaction

_BATCH = 1000

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
class AuditRecordPage:
    """A page of records with their BizTokens; `next_cursor` is None on the last one."""

    records: Sequence[tuple[AuditRecord, str | None]]
    next_cursor: str | None


@dataclass(kw_only=True, repr=False, eq=False)
class AuditService:
    """Records, lists, links and verifies."""

    database: Database
    clock: Callable[[], datetime]
    _record_one: Batcher[AuditRecord, None] = field(init=False)

    def __post_init__(self) -> None:
        self._record_one = Batcher(self._record_batch)

    def describe(
        self,
        actor: Actor,
        action: Action,
        *,
        verification: Verification | None = None,
        subject: str | None = None,
        fields: Collection[str] = (),
        outcome: str = "done",
    ) -> AuditRecord:
        """Returns the record of an action, to be passed to `record` or `record_now`.

        Args:
            actor: who acts.
            action: what happens.
            verification: what it happens to.
            subject: the id of the API key that a key action is about.
            fields: the names of the disclosed or searched fields.
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

    async def _record_batch(self, records: Sequence[AuditRecord]) -> Sequence[None]:
        async with self.database.write() as tx:
            await self.record(tx, *records)
        return [None] * len(records)

    async def search(
        self, wanted: AuditFilter, biz_token: str | None, *, limit: int, cursor: str | None
    ) -> AuditRecordPage:
        """Returns a page of records, newest first; with a BizToken, only those about it.

        Raises:
            InvalidRequestError: the cursor is invalid or belongs to another list.
        """
        before_id = decode_audit_cursor(cursor) if cursor else None
        async with self.database.read() as tx:
            if biz_token is not None:
                known = await tx.verifications.find(biz_token)
                wanted = replace(wanted, verification_id=known.id if known else 0)
            found = await tx.audit.list(wanted, limit=limit + 1, before_id=before_id)
        return AuditRecordPage(
            found[:limit], encode_audit_cursor(found[limit - 1][0].id) if len(found) > limit else None
        )

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
            links = []
            records = await tx.audit.after(last.audit_id, limit=_BATCH)
            for record in records:
                last = ChainLink(last.position + 1, record.id, record.linked_to(last.hash))
                links.append(last)
            if links:
                await tx.audit.add_links(links)
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
        while problem is None:
            async with self.database.read() as tx:
                batch = await tx.audit.chain(last.position, limit=_BATCH)
            if not batch:
                break
            for link, record in batch:
                if problem := _problem(last, link, record, anchors.get(link.position)):
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


def _problem(last: ChainLink, link: ChainLink, record: AuditRecord | None, anchor: str | None) -> str | None:
    """Returns the fault of a link, if it has one."""
    if link.position != last.position + 1:
        return f"The row at position {last.position + 1} was removed."
    if record is None:
        return f"Row {link.audit_id}, at position {link.position}, was removed."
    if link.audit_id < last.audit_id:
        return f"Row {link.audit_id}, at position {link.position}, was moved."
    if record.linked_to(last.hash) != link.hash:
        return f"Row {link.audit_id}, at position {link.position}, was changed or moved."
    if anchor is not None and anchor != link.hash.hex():
        return f"The chain was rewritten at position {link.position} or before: the log has another seal."
    return None
