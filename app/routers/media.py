"""The bytes of media items: whole, a range, or only their headers."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import StreamingResponse

from app.domain.media import MediaItem, MediaKind, parse_range
from app.domain.rate import RateClass
from app.routers.dependencies import ClientName, Viewer, services_of
from app.routers.problems import AUTH_ERRORS, declared
from app.routers.rates import limited
from app.routers.rejections import StrictRoute
from app.routers.schemas import BizToken
from app.services.media import MediaReplacedError

router = APIRouter(prefix="/v1/verifications", tags=["media"], route_class=StrictRoute)

_LIMITED = limited(RateClass.MEDIA)
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_MEDIA_ITEM = {"content": dict.fromkeys(("image/*", "video/*", "application/octet-stream"), _BYTES)}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole media item.", **_MEDIA_ITEM},
    304: {"description": "The caller has the current version already."},
    **declared(*AUTH_ERRORS, 404, 409, 410),
}
_PARTIAL: dict[int | str, dict[str, Any]] = {
    206: {"description": "The requested range.", **_MEDIA_ITEM},
    **declared(416),
}


@dataclass(frozen=True, slots=True)
class _Conditions:
    """The headers that select the answer."""

    range: str | None
    if_range: str | None
    if_none_match: str | None

    def is_unchanged(self, item: MediaItem) -> bool:
        return self.if_none_match is not None and (_etag(item) in self.if_none_match or self.if_none_match == "*")

    def span(self, item: MediaItem) -> tuple[int, int] | None:
        """Returns (start, stop) of the requested range; None for the whole item."""
        return parse_range(self.range, item.size_bytes) if self.if_range in {None, _etag(item)} else None


@router.get("/{biz_token}/media/{kind}", response_class=Response, responses=_ANSWERS | _PARTIAL, openapi_extra=_LIMITED)
@router.head(
    "/{biz_token}/media/{kind}", name="head_media", response_class=Response, responses=_ANSWERS, openapi_extra=_LIMITED
)
async def get_media(
    request: Request,
    actor: Viewer,
    biz_token: Annotated[BizToken, Path()],
    kind: MediaKind,
    range_: Annotated[str | None, Header(alias="Range", description="One range, `bytes=0-1023`.")] = None,
    if_range: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
    client: ClientName = None,
) -> Response:
    """Returns the bytes of a media item with the content type that they show. Audited before they are sent."""
    conditions = _Conditions(range_, if_range, if_none_match)
    try:
        return await _respond(request, actor, biz_token, kind, client, conditions)
    except MediaReplacedError:
        return await _respond(request, actor, biz_token, kind, client, conditions)


async def _respond(
    request: Request, actor: Viewer, biz_token: str, kind: MediaKind, client: str | None, conditions: _Conditions
) -> Response:
    media = services_of(request).media
    found = await media.find(actor, biz_token, kind, client=client)
    item = found.item
    if conditions.is_unchanged(item):
        return Response(status_code=304, headers={"ETag": _etag(item)})
    # RFC 9110 defines no ranges for HEAD.
    if request.method == "HEAD":
        return Response(headers=_headers(item, None))
    span = conditions.span(item)
    start, stop = span or (0, item.size_bytes)
    pieces = await media.open(actor, found, start, stop)
    return StreamingResponse(pieces, 206 if span else 200, _headers(item, span))


def _etag(item: MediaItem) -> str:
    return f'"{item.sha256}"'


def _headers(item: MediaItem, span: tuple[int, int] | None) -> dict[str, str]:
    start, stop = span or (0, item.size_bytes)
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(stop - start),
        "Content-Type": item.content_type,
        "ETag": _etag(item),
    }
    return headers | ({"Content-Range": f"bytes {start}-{stop - 1}/{item.size_bytes}"} if span else {})
