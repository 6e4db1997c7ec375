"""What a handler of one's own comes to, the peer: `python -m benchmarks.bare PORT --database URL [--driver asyncpg]`.

FastAPI and the same statements as the service's, on the same tables, from as many connections; no keys, no log, no
metrics, no limits, and nothing that is sealed or opened. By default as FastAPI's documentation shows it, with
SQLAlchemy's engine; with `asyncpg` the intake speaks to the driver itself, the least that can be done in Python.
"""

import argparse
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

import asyncpg
import uvicorn
from fastapi import FastAPI, HTTPException
from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.domain import lifecycle
from app.domain.rule import Rule
from app.domain.verification import Verification
from app.routers.models import Callback
from app.storage.results import ResultStore
from app.storage.tables import NO_OUTCOME, columns_of
from app.storage.verifications import _ADD, VerificationStore

_CONNECTIONS = 10  # as DATABASE_POOL_SIZE
_RULE = Rule()

Put = Callable[[Verification], Awaitable[object]]


def create_bare(url: URL, *, driver: str | None) -> FastAPI:
    """The application."""
    engine = create_async_engine(url, pool_size=_CONNECTIONS, max_overflow=0)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _by_asyncpg(engine, url) if driver else _by_sqlalchemy(engine) as app.state.put:
            yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/callbacks", status_code=202)
    async def call_back(callback: Callback) -> dict[str, Any]:
        """One insert."""
        now = datetime.now(UTC)
        new = lifecycle.new(
            client="bare", biz_token=callback.biz_token, rule_id="1", rule=_RULE, sealed_key=bytes(64), now=now
        )
        verification = lifecycle.called_back(new, "1", None, now)
        await app.state.put(verification)
        return {"biz_token": verification.biz_token, "state": verification.state, "received_at": now}

    @app.get("/v1/verifications/{biz_token}")
    async def get(biz_token: str) -> dict[str, Any]:
        """The selects of one result."""
        async with engine.connect() as connection:
            return await _read(connection, biz_token)

    return app


async def _read(connection: AsyncConnection, biz_token: str) -> dict[str, Any]:
    verification = await VerificationStore().find(connection, biz_token)
    if verification is None:
        raise HTTPException(404)
    results, ids = ResultStore(), [verification.id]
    text = (await results.texts(connection, ids))[verification.id]
    media = (await results.media(connection, ids)).get(verification.id, ())
    return {
        "verification": _told(asdict(verification)),
        "detection": _told(dict(text.values)),
        "attempts": [_told(dict(attempt)) for attempt in text.attempts],
        "media": [_told(asdict(medium)) for medium in media],
    }


def _told(columns: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in columns.items() if not isinstance(value, bytes)}


@asynccontextmanager
async def _by_sqlalchemy(engine: AsyncEngine) -> AsyncIterator[Put]:
    async def put(verification: Verification) -> None:
        async with engine.begin() as connection:
            await VerificationStore().add(connection, verification)

    yield put


@asynccontextmanager
async def _by_asyncpg(engine: AsyncEngine, url: URL) -> AsyncIterator[Put]:
    """The same statement with the same values, in a transaction of its own."""
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    sql, names = statement(engine)
    async with asyncpg.create_pool(address, min_size=_CONNECTIONS, max_size=_CONNECTIONS) as pool:

        async def put(verification: Verification) -> None:
            await pool.fetchrow(sql, *values_of(verification, names))

        yield put


def statement(engine: AsyncEngine) -> tuple[str, Sequence[str]]:
    """The service's insert as SQL, and the columns that its arguments stand for, in their order."""
    names = [field.name for field in fields(Verification) if field.name != "id"]
    compiled = _ADD["postgresql"].compile(dialect=engine.dialect, column_keys=names)
    return str(compiled), getattr(compiled, "positiontup", None) or names


def values_of(verification: Verification, names: Sequence[str]) -> Sequence[Any]:
    """The arguments of `statement`."""
    columns = columns_of(verification)
    columns["outcome"] = columns["outcome"] or NO_OUTCOME
    return [columns[name] for name in names]


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--database", type=make_url, required=True)
    parser.add_argument("--driver", choices=["asyncpg"])
    asked = parser.parse_args()
    app = create_bare(asked.database, driver=asked.driver)
    uvicorn.run(app, port=asked.port, log_level="critical", access_log=False, workers=1)
    os._exit(0)


if __name__ == "__main__":
    main()
