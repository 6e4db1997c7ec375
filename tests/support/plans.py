"""How a database executes a statement."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ClauseElement, Executable
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from app.storage.database import Database


async def plan_of(database: Database, statement: ClauseElement, parameters: Mapping[str, Any]) -> str:
    """Returns the plan of a statement, as the database writes it."""
    async with database.read() as tx:
        return "\n".join([str(row[-1]) for row in await tx.connection.execute(_Explained(statement), parameters)])


class _Explained(Executable, ClauseElement):
    """EXPLAIN of a statement."""

    inherit_cache = False

    def __init__(self, statement: ClauseElement) -> None:
        self.statement = statement


@compiles(_Explained)
def _explained(element: _Explained, compiler: SQLCompiler, **options: object) -> str:
    how = "EXPLAIN QUERY PLAN" if compiler.dialect.name == "sqlite" else "EXPLAIN"
    return f"{how} {compiler.process(element.statement, **options)}"
