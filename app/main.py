"""The API and the console as one ASGI application."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app.config import Settings
from app.console.site import ROUTERS
from app.errors import ServiceError
from app.factory import open_services
from app.routers import (
    audit,
    callbacks,
    deliveries,
    events,
    exports,
    me,
    media,
    notices,
    openapi,
    operations,
    problem_types,
    problems,
    redirects,
    stats,
    streams,
    verifications,
    webhook_endpoints,
)
from app.routers.middleware import RequestMiddleware
from app.services.clock import Clock
from app.worker import working

# Routes are matched in this order.
_ROOMS = (
    callbacks,
    exports,
    verifications,
    redirects,
    media,
    events,
    streams,
    audit,
    me,
    webhook_endpoints,
    deliveries,
    stats,
    operations,
    openapi,
    problem_types,
)


@asynccontextmanager
async def opened(app: FastAPI, settings: Settings, *, with_worker: bool, clock: Clock | None) -> AsyncIterator[None]:
    """Opens the services of the application, and the worker if it has one. Closes them at the end."""
    async with AsyncExitStack() as stack:
        services = app.state.services = await stack.enter_async_context(open_services(settings, clock=clock))
        await services.media_guard.confirm_owner()
        await stack.enter_async_context(working(services) if with_worker else services.clocks.following())
        yield


def create_app(settings: Settings, *, with_worker: bool = True, clock: Clock | None = None) -> FastAPI:
    """Creates the application. The server's lifespan opens and closes its stores.

    Args:
        settings: the settings.
        with_worker: whether this process also retrieves results.
        clock: the service's clock; by default the database's, or the machine's.
    """
    app = openapi.DescribedApi(
        title="faceid-results",
        summary="Retrieves, stores and serves the results of Tencent Cloud FaceID verifications.",
        version=version("faceid-results"),
        lifespan=partial(opened, settings=settings, with_worker=with_worker, clock=clock),
        webhooks=notices.router,
        servers=[{"url": "/", "description": "The service that serves this document."}],
        # The names of the functions are public: clients are generated from them.
        generate_unique_id_function=lambda route: route.name,
        docs_url=None,
        redoc_url=None,
        # A trace span would contain the path, and the path a BizToken.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        # Behind a proxy the redirect would point to plain HTTP, and the client would send the key there.
        redirect_slashes=False,
    )
    for room in _ROOMS:
        app.include_router(room.router)
    app.include_router(callbacks.browsers)
    for router in ROUTERS if settings.console.console else ():
        app.include_router(router)
    app.mount(openapi.ASSETS_PATH, openapi.assets)
    app.add_middleware(RequestMiddleware)
    app.add_exception_handler(ServiceError, problems.on_service_error)
    app.add_exception_handler(RequestValidationError, problems.on_invalid_request)
    app.add_exception_handler(HTTPException, problems.on_http_error)
    return app
