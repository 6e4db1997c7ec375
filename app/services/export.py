"""Exports: all verifications that a filter selects, as a table, masked or revealed."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime

from app.domain import export
from app.domain.api_key import Actor, Scope
from app.domain.audit import Action
from app.domain.listing import VerificationFilter
from app.domain.rate import RateClass
from app.errors import ForbiddenError, InvalidRequestError
from app.services.audit import AuditService
from app.services.limits import LimitService
from app.services.read import ReadService
from app.services.visibility import require_client, require_scope
from app.tabular import Format, TableWriter, writer

# Decrypting more rows in a row would stop other requests for too long.
_PAGE = 100


def new_table(of: Format, *, is_revealed: bool) -> TableWriter:
    """Returns an empty table for `ExportService.write`."""
    return writer(of, export.columns(is_revealed=is_revealed))


@dataclass(kw_only=True, repr=False, eq=False)
class ExportService:
    """Exports for a caller."""

    read: ReadService
    audit: AuditService
    limits: LimitService
    clock: Callable[[], datetime]

    async def write(
        self, actor: Actor, wanted: VerificationFilter, table: TableWriter, *, is_revealed: bool
    ) -> AsyncGenerator[bytes, None]:
        """Yields a `new_table` in pieces, in the order of `wanted`. The first piece shows that the export is allowed.

        Each page is read in a transaction of its own: rows that change during the export may be in their newer state.
        An altered result is marked and has no values. Revealed ones are recorded in the audit trail twice: before the
        first piece, and with their number after the last one or when the export is abandoned.

        Raises:
            ForbiddenError: the caller lacks a scope, or cannot see the wanted client's verifications.
            InvalidRequestError: a purpose is missing.
            TooManyExportsError: the caller, or the process, already runs as many exports as it may.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        require_scope(actor.caller, Scope.RESULTS_READ)
        self.limits.admit(actor.caller, RateClass.EXPORTS)
        require_client(actor.caller, wanted.client)
        wanted = replace(wanted, client=wanted.client or actor.caller.visible_client)
        with closing(table), self.limits.exporting(actor.caller):
            async with self._recorded(actor, table) if is_revealed else nullcontext():
                async for page in self.read.pages(wanted, size=_PAGE, is_revealed=is_revealed):
                    yield table.add([export.row_of(result, is_revealed=is_revealed) for result in page])
                yield table.end()

    def file_name(self, of: Format) -> str:
        """Returns a name for the file of an export that begins now."""
        return f"verifications-{self.clock():%Y%m%d-%H%M%S}.{of}"

    @asynccontextmanager
    async def _recorded(self, actor: Actor, table: TableWriter) -> AsyncGenerator[None, None]:
        """Records a revealing export at its begin and its end, if the caller may reveal."""
        if not actor.caller.allows(Scope.RESULTS_REVEAL):
            error = ForbiddenError(f"The API key lacks the scope {Scope.RESULTS_REVEAL}.")
            await self.audit.record_refusal(error, actor, Action.EXPORT)
            raise error
        if actor.purpose is None:
            raise InvalidRequestError("Revealing needs a purpose in X-Purpose.")
        fields = export.identity_columns(is_revealed=True)
        await self.audit.record_now(self.audit.describe(actor, Action.EXPORT, fields=fields, outcome="begun"))
        outcome = "interrupted after"
        try:
            yield
            outcome = "exported"
        finally:
            ended = self.audit.describe(actor, Action.EXPORT, fields=fields, outcome=f"{outcome} {table.count}")
            await self.audit.record_now(ended)
