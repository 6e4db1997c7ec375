"""The stored texts, media and objects of retrievals, and the record of their calls."""

from collections.abc import Sequence

import httpx
from sqlalchemy import text

from app.domain.media import MediaKind
from app.factory import Services
from tests.support.api import get


async def media(api: httpx.AsyncClient, biz_token: str) -> dict[MediaKind, bytes]:
    """Returns the media of a verification, as the API serves them."""
    found = (await get(api, biz_token))["media"]
    return {MediaKind(item["kind"]): (await api.get(item["href"])).content for item in found}


async def calls(services: Services) -> Sequence[str | None]:
    """Returns the error codes of all recorded calls."""
    async with services.database.read() as tx:
        return (await tx.connection.scalars(text("SELECT error_code FROM upstream_call ORDER BY id"))).all()


async def counts(services: Services) -> dict[str, int]:
    """Returns how many texts, media rows and objects are stored."""
    async with services.database.read() as tx:
        texts = await tx.connection.scalar(text("SELECT count(*) FROM detection"))
        named = await tx.connection.scalar(text("SELECT count(*) FROM media"))
    return {"texts": texts, "media": named, "objects": len([None async for _ in services.media_store.list()])}
