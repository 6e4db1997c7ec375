"""The API key of the caller."""

from fastapi import APIRouter

from app.routers.dependencies import Holder
from app.routers.problems import declared
from app.routers.rejections import StrictRoute
from app.routers.schemas import KeyDescription

router = APIRouter(prefix="/v1/me", tags=["keys"], route_class=StrictRoute)


@router.get("", responses=declared(401, 403, 413, 422, 500, 503))
async def get_current_key(key: Holder) -> KeyDescription:
    """Describes the key of this request. Any valid key may call it; no scope is needed."""
    return KeyDescription.model_validate(key)
