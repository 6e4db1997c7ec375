"""The export of a list as CSV, NDJSON or XLSX, streamed."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from app.domain.rate import RateClass
from app.routers.dependencies import PossiblePurpose, Reader, services_of
from app.routers.problems import AUTH_ERRORS, declared
from app.routers.rates import limited
from app.routers.rejections import StrictRoute
from app.routers.schemas import ExportQuery
from app.services.export import new_table
from app.tabular import MEDIA_TYPES

router = APIRouter(prefix="/v1/verifications", tags=["verifications"], route_class=StrictRoute)

_BYTES = {"schema": {"type": "string", "format": "binary"}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole table.", "content": dict.fromkeys(MEDIA_TYPES.values(), _BYTES)},
    **declared(*AUTH_ERRORS, 400),
}


@router.get("/export", response_class=StreamingResponse, responses=_ANSWERS, openapi_extra=limited(RateClass.EXPORTS))
async def export_verifications(
    request: Request, actor: Reader, wanted: Annotated[ExportQuery, Query()], purpose: PossiblePurpose = None
) -> StreamingResponse:
    """Exports all verifications of a list, masked, or with `reveal` unmasked and audited.

    CSV has a byte order mark for spreadsheets, and an apostrophe before texts that begin like a formula. Export
    revealed ID numbers as XLSX, where they are texts: spreadsheets round the numbers of a CSV. An error in the middle
    ends the connection before the end of the answer. NDJSON then lacks its last line `{"end": true, "count": N}`.
    """
    export = services_of(request).export
    table = new_table(wanted.format, is_revealed=wanted.reveal)
    pieces = export.write(replace(actor, purpose=purpose), wanted.filter(), table, is_revealed=wanted.reveal)
    # An error in the first piece can still be answered.
    first = await anext(pieces)
    headers = {"Content-Disposition": f'attachment; filename="{export.file_name(wanted.format)}"'}
    return StreamingResponse(_continued(first, pieces), media_type=MEDIA_TYPES[wanted.format], headers=headers)


async def _continued(first: bytes, pieces: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(pieces):
        yield first
        async for piece in pieces:
            yield piece
