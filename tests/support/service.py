"""The service as tests and benchmarks start it: settings, the app in process, the environment of its processes."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from app.cli.server import listen, serving
from app.config import Settings
from app.domain.api_key import OPERATOR, Actor, Caller, Scope
from app.domain.deliveries import DeliveryFilter, new_delivery
from app.domain.events import Event, EventType, new_public_id
from app.domain.rate import RateClass
from app.factory import Services, open_services
from app.main import create_app, opened
from app.sealing.keyring import KeyRing
from app.services.clock import Clock, now
from app.services.webhook_endpoints import EndpointFacts
from app.storage import schema
from app.storage.database import Database
from simulator.options import DEMO_CREDENTIALS

UNLIMITED = {f"rate_{of}": "0" for of in RateClass} | {"waits_per_key": 0, "streams_per_key": 0}
"""Settings without limits per caller, for loads that one key sends."""

SETTING_NAMES = {
    name for field in fields(Settings) for name in getattr(Settings.default(), field.name).__class__.model_fields
}
"""The names of all settings, in lower case."""

# Applications that no service uses, with and without a console. An application builds each of its routes at the first
# request, which takes as long as to open the stores.
_applications: Mapping[bool, list[FastAPI]] = {True: [], False: []}


def settings_for(folder: Path, faceid_url: str, **overrides: object) -> Settings:
    """Returns the settings of a service that calls this simulator, independent of the environment."""
    values: dict[str, Any] = {
        "tencentcloud_secret_id": DEMO_CREDENTIALS.secret_id,
        "tencentcloud_secret_key": SecretStr(DEMO_CREDENTIALS.secret_key),
        "tencentcloud_token": None,
        "faceid_endpoint": faceid_url,
        "faceid_rule_id": "1",
        # The tests of the rules set it to the default, False.
        "accept_unknown_rules": True,
        "faceid_info_type": "0",
        "faceid_requests_per_second": 1000,
        "data_dir": folder,
        "database_url": None,
        "media_url": None,
        "keyring_file": None,
        "webhook_allowed_networks": "127.0.0.0/8",
    }
    return Settings.read(**values | overrides)


def with_services(services: Services, **values: object) -> Services:
    """Returns the services with other values of some fields and other services."""
    copied = copy(services)
    vars(copied).update(values)
    return copied


def changed(settings: Settings, **overrides: object) -> Settings:
    """Returns the settings with some replaced, each by the name that users write."""
    assert set(overrides) <= SETTING_NAMES
    slices = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return replace(
        settings,
        **{
            place: known.model_copy(
                update={name: overrides[name] for name in type(known).model_fields if name in overrides}
            )
            for place, known in slices.items()
        },
    )


def actor(caller: Caller = OPERATOR, *, purpose: str | None = None) -> Actor:
    """Returns the caller as services expect it."""
    return Actor(caller=caller, request_id="request-of-the-test", purpose=purpose)


@dataclass
class Running:
    """A running service, with new API keys and clients."""

    app: FastAPI

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    async def key(self, *scopes: Scope, client: str = "default", valid_for: timedelta = timedelta(days=90)) -> str:
        _, text = await self.services.api_keys.create(actor(), "test", scopes, client=client, valid_for=valid_for)
        return text

    async def endpoint_id(self) -> str:
        """Returns the id of an endpoint of the default client. Nothing accepts connections at its URL."""
        page = await self.services.webhook_endpoints.list(actor(), client="default")
        if page.endpoints:
            return page.endpoints[0].id
        endpoint, _ = await self.services.webhook_endpoints.create(actor(), EndpointFacts(url="http://127.0.0.1:9/"))
        return endpoint.id

    async def delivery_id(self) -> str:
        """Returns the id of a delivery to an endpoint of the default client."""
        endpoint = await self.services.webhook_endpoints.get(actor(), await self.endpoint_id())
        at = self.services.clock()
        event = Event(public_id=new_public_id(), type=EventType.TEST, client="default", at=at, details="{}")
        async with self.services.database.write() as tx:
            await tx.events.add_all([event])
            await tx.events.create_counter()
            known = (await tx.events.sequence(limit=500))[-1]
            await tx.deliveries.add_all([replace(new_delivery(endpoint, known, at), due_at=None)])
            wanted = DeliveryFilter(endpoint_id=endpoint.id)
            found, _ = await tx.delivery_log.search(wanted, limit=1, before_id=None, examined=1)
        return f"dlv_{found[0][0].id}"

    def client(self, key: str | None) -> httpx.AsyncClient:
        headers = {"X-Purpose": "test"} | ({"Authorization": f"Bearer {key}"} if key else {})
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://service", headers=headers)


@asynccontextmanager
async def running(settings: Settings, *, with_worker: bool = True, clock: Clock | None = now) -> AsyncIterator[Running]:
    """Starts the service in process, without a server, and stops it at the end.

    The machine's clock is trusted without checks. None makes the service set and check its clock, as in production.
    Do not add routes: the next service of this process gets the same application, with its own services.
    """
    free = _applications[settings.console.console]
    app = free.pop() if free else create_app(settings)
    async with opened(app, settings, with_worker=with_worker, clock=clock):
        yield Running(app)
    free.append(app)


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[tuple[Running, int]]:
    """Serves the service without a worker on a socket of this machine; yields it and its port."""
    app = create_app(settings, with_worker=False, clock=now)
    with listen("127.0.0.1", 0) as listener:
        async with serving(app, listener):
            yield Running(app), listener.getsockname()[1]


def everything() -> list[Scope]:
    """Returns every scope of an ordinary client."""
    return [scope for scope in Scope if scope is not Scope.ADMIN]


def environment_of(settings: Settings) -> Mapping[str, str]:
    """Returns the environment of a process that reads these settings and no overrides."""
    return {
        "PATH": os.environ["PATH"],
        "TENCENTCLOUD_SECRET_ID": settings.faceid.tencentcloud_secret_id,
        "TENCENTCLOUD_SECRET_KEY": settings.faceid.tencentcloud_secret_key.get_secret_value(),
        "FACEID_ENDPOINT": settings.faceid.faceid_endpoint,
        "FACEID_RULE_ID": str(settings.rules.faceid_rule_id),
        "FACEID_REQUESTS_PER_SECOND": str(settings.faceid.faceid_requests_per_second),
        "FACEID_TIMEOUT_SECONDS": str(settings.faceid.faceid_timeout_seconds),
        "DATA_DIR": str(settings.database.data_dir),
        "DATABASE_URL": settings.database.database_url.get_secret_value() if settings.database.database_url else "",
        "MEDIA_URL": settings.media.media_url or "",
        "AWS_ENDPOINT_URL": str(settings.media.aws_endpoint_url or ""),
        "AWS_ACCESS_KEY_ID": settings.media.aws_access_key_id or "",
        "AWS_SECRET_ACCESS_KEY": (settings.media.aws_secret_access_key or SecretStr("")).get_secret_value(),
        "WEBHOOK_ALLOWED_NETWORKS": settings.webhooks.webhook_allowed_networks,
        **{name.upper(): str(value) for name, value in settings.limits.model_dump().items()},
    }


async def set_up(settings: Settings) -> str:
    """Creates the schema, the key ring and an API key; returns the key."""
    database = Database(settings.database)
    await schema.migrate(database)
    KeyRing.create(settings.keyring.keyring_path)
    await database.aclose()
    async with open_services(settings) as services:
        _, key = await services.api_keys.create(
            actor(), "chaos", list(Scope), client="default", valid_for=timedelta(days=1)
        )
    return key
