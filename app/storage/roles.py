"""Permissions of the service's own role on Postgres, for installations in which another role owns the tables."""

from collections.abc import Iterator

from sqlalchemy import Dialect, text

from app.errors import ConfigurationError
from app.storage.database import Database
from app.storage.tables import audit, audit_link, metadata

_READ_ONLY = frozenset({"alembic_version"})
# Records that are never changed or removed. MAINTAIN permits the lock under which they are linked.
_APPEND_ONLY = frozenset({audit.name, audit_link.name})
# The first version with MAINTAIN.
_MIN_VERSION = 17_00_00
_ROLE = text("SELECT 1 FROM pg_roles WHERE rolname = :role")
# Also as a member of the owner, whose rights a member has or can take, and as a superuser.
_OWNED = text(
    "SELECT count(*) FROM pg_class"
    " WHERE relnamespace = current_schema()::regnamespace AND pg_has_role(CAST(:role AS name), relowner, 'MEMBER')"
)


async def permit(database: Database, role: str) -> None:
    """Lets a role read and write rows, but not change tables or rows of the audit. Safe to repeat.

    Raises:
        ConfigurationError: the role does not exist, or has the rights of the owner of the tables and so could do
            anything with them, or Postgres is too old.
    """
    async with database.write(seconds=None) as tx:
        connection = tx.connection
        if int(str(await connection.scalar(text("SHOW server_version_num")))) < _MIN_VERSION:
            raise ConfigurationError("DATABASE_SERVICE_ROLE needs Postgres 17. Remove it, or upgrade Postgres.")
        if not await connection.scalar(_ROLE, {"role": role}):
            raise ConfigurationError(
                f"There is no role {role} in Postgres. Create it, or correct DATABASE_SERVICE_ROLE."
            )
        if await connection.scalar(_OWNED, {"role": role}):
            raise ConfigurationError(
                f"The role {role} of DATABASE_SERVICE_ROLE owns tables, is a member of a role that does, or is a "
                "superuser, so it cannot be limited. Give them to another role (`REASSIGN OWNED`) and migrate with it."
            )
        schema = str(await connection.scalar(text("SELECT current_schema()")))
        for statement in _statements(connection.dialect, schema, role):
            await connection.execute(text(statement))


def _statements(dialect: Dialect, schema: str, role: str) -> Iterator[str]:
    quote = dialect.identifier_preparer.quote_identifier
    place, grantee = quote(schema), quote(role)
    yield f"GRANT USAGE ON SCHEMA {place} TO {grantee}"
    for name in sorted({*metadata.tables, *_READ_ONLY}):
        if name in _READ_ONLY:
            permitted = "SELECT"
        elif name in _APPEND_ONLY:
            permitted = "SELECT, INSERT, MAINTAIN"
        else:
            permitted = "SELECT, INSERT, UPDATE, DELETE"
        yield f"REVOKE ALL ON {place}.{quote(name)} FROM {grantee}"
        yield f"GRANT {permitted} ON {place}.{quote(name)} TO {grantee}"
    for table in metadata.sorted_tables:
        if table.autoincrement_column is not None:
            sequence = f"{table.name}_{table.autoincrement_column.name}_seq"
            yield f"GRANT USAGE ON SEQUENCE {place}.{quote(sequence)} TO {grantee}"
