"""The bytes of pictures and videos: whole, by range, or only their headers."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import StreamingResponse

from app.domain.detection import MediaKind, Medium
from app.errors import RangeNotSatisfiableError
from app.routers.dependencies import Purpose, RequestId, Viewer, services_of
from app.routers.models import BizToken
from app.routers.problems import KEYED, declared

router = APIRouter(prefix="/v1/verifications", tags=["media"])

_RANGE = re.compile(r"bytes=([0-9]{0,20})-([0-9]{0,20})", re.IGNORECASE)
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_MEDIUM = {"content": dict.fromkeys(("image/*", "video/*", "application/octet-stream"), _BYTES)}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole medium.", **_MEDIUM},
    304: {"description": "The caller has it already."},
    **declared(*KEYED, 404, 410),
}
_PARTIAL: dict[int | str, dict[str, Any]] = {
    206: {"description": "The range that was asked for.", **_MEDIUM},
    **declared(416),
}


@router.get("/{biz_token}/media/{kind}", response_class=Response, responses=_ANSWERS | _PARTIAL)
@router.head("/{biz_token}/media/{kind}", response_class=Response, responses=_ANSWERS)
async def download(
    request: Request,
    caller: Viewer,
    biz_token: Annotated[BizToken, Path()],
    kind: MediaKind,
    purpose: Purpose,
    request_id: RequestId,
    range_: Annotated[str | None, Header(alias="Range", description="One range, `bytes=0-1023`.")] = None,
    if_range: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The bytes of one medium, with the type that they show themselves. It is on record before they are sent."""

    def is_known(medium: Medium) -> bool:
        return if_none_match is not None and (_etag(medium) in if_none_match or if_none_match == "*")

    def ranged(medium: Medium) -> tuple[int, int] | None:
        return parse_range(range_, medium.size_bytes) if if_range in {None, _etag(medium)} else None

    def part(medium: Medium) -> tuple[int, int] | None:
        if is_known(medium) or request.method == "HEAD":  # for which RFC 9110 defines no ranges
            return None
        return ranged(medium) or (0, medium.size_bytes)

    medium, pieces = await services_of(request).query.open_medium(
        caller, biz_token, kind, part, purpose=purpose, request_id=request_id
    )
    if is_known(medium):
        return Response(status_code=304, headers={"ETag": _etag(medium)})
    if pieces is None:
        return Response(headers=_headers(medium, None))
    wanted = ranged(medium)
    return StreamingResponse(pieces, 206 if wanted else 200, _headers(medium, wanted))


def parse_range(text: str | None, size: int) -> tuple[int, int] | None:
    """(start, stop) of a Range header after RFC 9110, section 14; None where the whole is to be sent.

    Several ranges at once, other units and nonsense may be ignored, and are.

    Raises:
        RangeNotSatisfiableError: the range begins behind the end.
    """
    match = _RANGE.fullmatch(text) if text else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if first and last and int(last) < int(first):
        return None
    if start >= size:
        raise RangeNotSatisfiableError("The range lies outside the medium.", size=size)
    return start, stop


def _etag(medium: Medium) -> str:
    return f'"{medium.sha256}"'


def _headers(medium: Medium, wanted: tuple[int, int] | None) -> dict[str, str]:
    start, stop = wanted or (0, medium.size_bytes)
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(stop - start),
        "Content-Type": medium.content_type,
        "ETag": _etag(medium),
    }
    return headers | ({"Content-Range": f"bytes {start}-{stop - 1}/{medium.size_bytes}"} if wanted else {})
