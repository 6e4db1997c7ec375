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
from app.routers import audit, callbacks, document, media, meta, problems, redirects, verifications
from app.routers.boundary import Boundary
from app.worker import working


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

    app = document.Api(
        title="faceid-results",
        summary="Results of Tencent Cloud FaceID verifications: retrieved, kept, served.",
        version=version("faceid-results"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
        },  # a span would name the path, and a BizToken in it
        redirect_slashes=False,  # the way to the other spelling is plain HTTP behind a proxy, and the key goes along
    )
    for room in (callbacks, verifications, redirects, media, audit, meta, document):  # they are tried in this order
        app.include_router(room.router)
    app.mount(document.ASSETS_PATH, document.assets)
    app.add_middleware(Boundary)
    app.add_exception_handler(ServiceError, problems.on_service_error)
    app.add_exception_handler(RequestValidationError, problems.on_invalid_request)
    app.add_exception_handler(HTTPException, problems.on_http_error)
    return app
