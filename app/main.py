"""The API as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app.config import Settings
from app.errors import ServiceError
from app.factory import open_services
from app.routers import callbacks, media, meta, problems, verifications
from app.routers.boundary import Boundary
from app.worker import working

_ERRORS = (400, 401, 403, 404, 409, 413, 422)


def create_app(settings: Settings, *, with_worker: bool = True) -> FastAPI:
    """The application; its stores open when the server starts it, and close with it.

    Args:
        settings: what to serve.
        with_worker: whether results are retrieved in this process as well.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            app.state.services = await stack.enter_async_context(open_services(settings))
            if with_worker:
                await stack.enter_async_context(working(app.state.services))
            yield

    app = FastAPI(
        title="faceid-results",
        summary="Results of Tencent Cloud FaceID verifications: retrieved, kept, served.",
        version=version("faceid-results"),
        lifespan=lifespan,
        redoc_url=None,
    )
    for router in (callbacks.router, verifications.router, media.router):
        app.include_router(router, responses=dict.fromkeys(_ERRORS, _PROBLEM))
    app.include_router(meta.router)
    app.add_middleware(Boundary)
    app.add_exception_handler(ServiceError, problems.on_service_error)
    app.add_exception_handler(RequestValidationError, problems.on_invalid_request)
    app.add_exception_handler(HTTPException, problems.on_http_error)
    return app


_PROBLEM: dict[str, object] = {
    "description": "What went wrong, after RFC 9457.",
    "content": {problems.MEDIA_TYPE: {"schema": problems.Problem.model_json_schema()}},
}
