"""The peer of requests: a minimal handler, as a team would write it without this project.

`python -m benchmarks.baseline PORT --database URL [--driver asyncpg]`: FastAPI and the service's own statements, on the
same tables, with as many connections; no keys, logs, metrics or limits, and nothing is encrypted or decrypted. By
default as FastAPI's documentation shows it, with SQLAlchemy; with `asyncpg` it uses the driver directly, which is the
least that Python can do.
"""

import argparse
import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

import asyncpg
import uvicorn
from fastapi import FastAPI, HTTPException
from sqlalchemy import URL, Dialect, make_url
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.domain import lifecycle
from app.domain.rule import Rule
from app.domain.verification import Verification
from app.routers.schemas import Callback
from app.storage.counts import CountStore
from app.storage.events import EventStore
from app.storage.results import ResultStore
from app.storage.tables import columns_of
from app.storage.tables import verification as table
from app.storage.verifications import VerificationStore

# The default of DATABASE_POOL_SIZE.
_CONNECTIONS = 10
_RULE = Rule()

_SELECT_ONE = "SELECT * FROM verification WHERE biz_token = $1"
_SELECT_ALL = {
    "detection": "SELECT * FROM detection WHERE verification_id = $1",
    "attempts": "SELECT * FROM liveness_attempt WHERE verification_id = $1 ORDER BY position",
    "media": "SELECT * FROM media WHERE verification_id = $1",
}

Put = Callable[[Verification], Awaitable[object]]
Get = Callable[[str], Awaitable[dict[str, Any] | None]]


def create_app(url: URL, *, driver: str | None) -> FastAPI:
    """Returns the application."""
    engine = create_async_engine(url, pool_size=_CONNECTIONS, max_overflow=0)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _by_asyncpg(engine, url) if driver else _by_sqlalchemy(engine) as (app.state.add, app.state.find):
            yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/callbacks", status_code=202)
    async def call_back(callback: Callback) -> dict[str, Any]:
        """Inserts one row."""
        verification = _called_back(callback.biz_token)
        await app.state.add(verification)
        return {name: getattr(verification, name) for name in ("biz_token", "state", "received_at")}

    @app.get("/v1/verifications/{biz_token}")
    async def get(biz_token: str) -> dict[str, Any]:
        """Selects one result."""
        found: dict[str, Any] | None = await app.state.find(biz_token)
        if found is None:
            raise HTTPException(404)
        return found

    return app


def _called_back(biz_token: str) -> Verification:
    now = datetime.now(UTC)
    new = lifecycle.new(client="bare", biz_token=biz_token, rule_id="1", rule=_RULE, sealed_key=bytes(64), now=now)
    return lifecycle.called_back(new, None, now)


async def _read(connection: AsyncConnection, biz_token: str) -> dict[str, Any] | None:
    found = await VerificationStore(connection, EventStore(connection), CountStore(connection)).find_all([biz_token])
    if not found:
        return None
    (verification,) = found
    results, ids = ResultStore(connection), [verification.id]
    text = (await results.texts(ids))[verification.id]
    media = (await results.media(ids)).get(verification.id, ())
    return {
        "verification": _readable(asdict(verification)),
        "detection": _readable(dict(text.values)),
        "attempts": [_readable(dict(attempt)) for attempt in text.attempts],
        "media": [_readable(asdict(item)) for item in media or ()],
    }


def _readable(columns: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in columns.items() if not isinstance(value, bytes)}


@asynccontextmanager
async def _by_sqlalchemy(engine: AsyncEngine) -> AsyncIterator[tuple[Put, Get]]:
    async def put(verification: Verification) -> None:
        async with engine.begin() as connection:
            await VerificationStore(connection, EventStore(connection), CountStore(connection)).add_all([verification])

    async def get(biz_token: str) -> dict[str, Any] | None:
        async with engine.connect() as connection:
            return await _read(connection, biz_token)

    yield put, get


@asynccontextmanager
async def _by_asyncpg(engine: AsyncEngine, url: URL) -> AsyncIterator[tuple[Put, Get]]:
    """Runs the same statements, each in its own transaction."""
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    sql, arguments = _insert(engine.dialect)
    async with asyncpg.create_pool(address, min_size=_CONNECTIONS, max_size=_CONNECTIONS) as pool:

        async def put(verification: Verification) -> None:
            await pool.fetchrow(sql, *arguments(verification))

        async def get(biz_token: str) -> dict[str, Any] | None:
            async with pool.acquire() as connection:
                found = await connection.fetchrow(_SELECT_ONE, biz_token)
                if found is None:
                    return None
                others = {name: await connection.fetch(select, found["id"]) for name, select in _SELECT_ALL.items()}
            parts = {name: [_readable(dict(row)) for row in rows] for name, rows in others.items()}
            return {"verification": _readable(dict(found)), **parts}

        yield put, get


async def alone(url: URL, seconds: float) -> float:
    """Returns how many of these inserts per second are possible without HTTP, with as many connections."""
    engine, end, done = create_async_engine(url), time.perf_counter() + seconds, 0
    async with _by_asyncpg(engine, url) as (put, _):

        async def insert() -> None:
            nonlocal done
            while time.perf_counter() < end:
                await put(_called_back(f"alone-{secrets.token_hex(8)}"))
                done += 1

        await asyncio.gather(*(insert() for _ in range(_CONNECTIONS)))
    return done / seconds


def _insert(dialect: Dialect) -> tuple[str, Callable[[Verification], Sequence[Any]]]:
    """Returns the service's insert as SQL, and a function that returns the arguments of it for a row."""
    names = [field.name for field in fields(Verification) if field.name != "id"]
    insert = postgresql.insert(table).on_conflict_do_nothing().returning(table.c.id, table.c.biz_token)
    compiled = insert.compile(dialect=dialect, column_keys=names)
    places = [(name, table.c[name].type.dialect_impl(dialect).bind_processor(dialect)) for name in compiled.params]

    def arguments(verification: Verification) -> Sequence[Any]:
        columns = columns_of(verification)
        return [convert(columns[name]) if convert else columns[name] for name, convert in places]

    return str(compiled), arguments


def main() -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--database", type=make_url, required=True)
    parser.add_argument("--driver", choices=["asyncpg"])
    arguments = parser.parse_args()
    app = create_app(arguments.database, driver=arguments.driver)
    uvicorn.run(app, port=arguments.port, log_level="critical", access_log=False, workers=1)
    os._exit(0)


if __name__ == "__main__":
    main()
