"""The history of one verification: its calls to Tencent, its changes, and who did what with it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.domain.api_key import Actor, Scope
from app.domain.audit import AuditFilter, AuditRecord
from app.domain.events import Event
from app.domain.pause import Pause
from app.domain.verification import Result, State, UpstreamCall
from app.services.deliveries import DeliveryRecord, record_of
from app.services.read import ReadService
from app.services.visibility import find_visible, require_scope
from app.storage.database import Database, Transaction

_MAX, _MAX_DELIVERIES = 200, 50


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A verification with the masked identity, and what happened to it: the newest 200 of each kind, oldest first.

    `pause` is the one that stops its calls.

    Only admins get the records of the audit, and only callers with `webhooks:manage` the newest 50 deliveries. An
    erased verification has neither result nor calls.
    """

    result: Result
    calls: Sequence[UpstreamCall] = ()
    events: Sequence[Event] = ()
    records: Sequence[AuditRecord] = field(default=())
    deliveries: Sequence[DeliveryRecord] = ()
    pause: Pause | None = None


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class HistoryService:
    """Reads the history of verifications."""

    database: Database
    read: ReadService

    async def get(self, actor: Actor, biz_token: str, *, client: str | None = None) -> History:
        """Returns the history of a verification, including an erased one.

        Raises:
            ForbiddenError: the caller lacks `results:read`.
            NotFoundError: it does not exist or belongs to another client.
            TamperedDataError: stored values were changed.
        """
        require_scope(actor.caller, Scope.RESULTS_READ)
        async with self.database.read() as tx:
            known = await find_visible(tx, actor.caller, biz_token, client)
            calls = await tx.results.calls(known.id, limit=_MAX)
            events = await tx.events.of_verification(known.id, limit=_MAX)
            about = AuditFilter(verification_ids=frozenset([known.id]))
            found = await tx.audit.list(about, limit=_MAX, before_id=None) if actor.caller.allows(Scope.ADMIN) else []
            pauses = await tx.pauses.list(known.account) if known.due_at else []
            deliveries = await _deliveries(tx, known.id) if actor.caller.allows(Scope.WEBHOOKS_MANAGE) else []
        result = (
            Result(verification=known)
            if known.state is State.ERASED
            else await self.read.get(actor, biz_token, client=known.client)
        )
        return History(
            result=result,
            calls=calls,
            events=events,
            records=[record for record, _ in reversed(found)],
            deliveries=deliveries,
            pause=next((pause for pause in pauses if pause.rule_id in {None, known.rule_id}), None),
        )


async def _deliveries(tx: Transaction, verification_id: int) -> Sequence[DeliveryRecord]:
    """Returns the newest deliveries of a verification, oldest first."""
    found = await tx.delivery_log.of_verification(verification_id, limit=_MAX_DELIVERIES)
    attempts = await tx.delivery_log.attempts([delivery.id for delivery, _ in found])
    ids = dict.fromkeys(delivery.endpoint_id for delivery, _ in found)
    endpoints = {endpoint_id: await tx.webhook_endpoints.find(endpoint_id) for endpoint_id in ids}
    return [
        record_of(endpoint, delivery, event, attempts)
        for delivery, event in found
        if (endpoint := endpoints[delivery.endpoint_id])
    ]
