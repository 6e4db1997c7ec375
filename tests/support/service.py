"""The service as tests and benchmarks start it: settings, the app in process, the environment of its processes."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from app.config import Settings
from app.domain.access import Scope
from app.factory import Services, open_services
from app.main import create_app
from app.sealing.keyring import KeyRing
from app.storage import schema
from app.storage.database import Database
from simulator.options import DEMO_CREDENTIALS


def settings_for(folder: Path, faceid_url: str, **others: object) -> Settings:
    """The settings of a service that asks this simulator, whatever stands in the environment."""
    values: dict[str, Any] = {
        "tencentcloud_secret_id": DEMO_CREDENTIALS.secret_id,
        "tencentcloud_secret_key": SecretStr(DEMO_CREDENTIALS.secret_key),
        "tencentcloud_token": None,
        "faceid_endpoint": faceid_url,
        "faceid_rule_id": "1",
        "faceid_info_type": "0",
        "faceid_requests_per_second": 1000,
        "data_dir": folder,
        "database_url": None,
        "media_url": None,
        "keyring_file": None,
    }
    return Settings(**values | others)


@dataclass
class Running:
    """A service as its clients meet it."""

    app: FastAPI

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    async def key(self, *scopes: Scope, client: str = "default", valid_for: timedelta = timedelta(days=1)) -> str:
        _, text = await self.services.access.create("test", scopes, client=client, valid_for=valid_for)
        return text

    def client(self, key: str | None) -> httpx.AsyncClient:
        headers = {"X-Purpose": "test"} | ({"Authorization": f"Bearer {key}"} if key else {})
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://service", headers=headers)


@asynccontextmanager
async def running(settings: Settings, *, with_worker: bool = True) -> AsyncIterator[Running]:
    """The service, started; no server in between."""
    app = create_app(settings, with_worker=with_worker)
    async with app.router.lifespan_context(app):
        yield Running(app)


def everything() -> list[Scope]:
    """Every scope of an ordinary client."""
    return [scope for scope in Scope if scope is not Scope.ADMIN]


def environment_of(settings: Settings) -> Mapping[str, str]:
    """What makes a process read these settings, and no others."""
    return {
        "PATH": os.environ["PATH"],
        "TENCENTCLOUD_SECRET_ID": settings.tencentcloud_secret_id,
        "TENCENTCLOUD_SECRET_KEY": settings.tencentcloud_secret_key.get_secret_value(),
        "FACEID_ENDPOINT": settings.faceid_endpoint,
        "FACEID_RULE_ID": str(settings.faceid_rule_id),
        "FACEID_REQUESTS_PER_SECOND": str(settings.faceid_requests_per_second),
        "FACEID_TIMEOUT_SECONDS": str(settings.faceid_timeout_seconds),
        "DATA_DIR": str(settings.data_dir),
        "DATABASE_URL": settings.database_url.get_secret_value() if settings.database_url else "",
        "MEDIA_URL": str(settings.media_url),
    }


async def set_up(settings: Settings) -> str:
    """Makes the schema, and an API key."""
    database = Database(settings)
    await schema.migrate(database)
    KeyRing.create(settings.keyring_path)
    await database.aclose()
    async with open_services(settings) as services:
        _, key = await services.access.create("chaos", list(Scope), client="default", valid_for=timedelta(days=1))
    return key
