"""Dialects whose engines share compiled statements, because to compile them takes a fifth of the time of the tests.

A process of the service has one engine, which compiles each statement once. The tests open an engine for each service.
"""

from typing import Any, ClassVar

from sqlalchemy import Engine
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite


class SharedSQLite(SQLiteDialect_aiosqlite):
    """The dialect of `sqlite+aiosqlite:///`, equal to every other one, so engines find each other's statements."""

    supports_statement_cache = True
    compiled: ClassVar[dict[Any, Any]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SharedSQLite)

    def __hash__(self) -> int:
        return hash(SharedSQLite)

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        """Replaces the engine's own statements."""
        engine.update_execution_options(compiled_cache=cls.compiled)


class SharedPostgres(PGDialect_asyncpg):
    """The same for `postgresql+asyncpg://`. All servers of the tests have the same version."""

    supports_statement_cache = True
    compiled: ClassVar[dict[Any, Any]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SharedPostgres)

    def __hash__(self) -> int:
        return hash(SharedPostgres)

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        """Replaces the engine's own statements."""
        engine.update_execution_options(compiled_cache=cls.compiled)


def share_compiled_statements() -> None:
    """Makes the engines that this process creates from now on use these dialects."""
    registry.register("sqlite.aiosqlite", __name__, SharedSQLite.__name__)
    registry.register("postgresql.asyncpg", __name__, SharedPostgres.__name__)
