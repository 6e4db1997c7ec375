"""The bytes of media items, under a grant: a video asks for many ranges, and cannot state a purpose."""

from fastapi import APIRouter, Response
from starlette.responses import StreamingResponse

from app.console.visits import PageRoute, SignedInVisit, Visit
from app.domain.grant import Grant
from app.domain.media import MediaKind, parse_range
from app.errors import NotFoundError
from app.services.media import MediaReplacedError

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/admin/media/{grant}/{kind}")
async def download(visit: SignedInVisit, grant: str, kind: str) -> Response:
    """Returns a picture or a video, whole or a range. Audited when the grant was made."""
    granted = visit.services.disclosures.find(visit.signed_in, grant)
    if granted is None or kind not in set(MediaKind):
        raise NotFoundError("There is no such disclosure.")
    try:
        return await _respond(visit, granted, MediaKind(kind))
    except MediaReplacedError:
        raise NotFoundError("A newer result has replaced the media item.") from None


async def _respond(visit: Visit, grant: Grant, kind: MediaKind) -> Response:
    disclosures = visit.services.disclosures
    found = await disclosures.find_media(visit.actor, grant, kind)
    item = found.item
    span = parse_range(visit.request.headers.get("Range"), item.size_bytes)
    start, stop = span or (0, item.size_bytes)
    pieces = await disclosures.open_media(visit.actor, found, start, stop)
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": "inline",
        "Content-Length": str(stop - start),
        "Content-Type": item.content_type,
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    if span:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{item.size_bytes}"
    return StreamingResponse(pieces, 206 if span else 200, headers)
