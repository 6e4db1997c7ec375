"""The operator learns why the database does not answer and where it is, and never reads a password."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.engine import make_url

from app.errors import UnavailableError
from app.storage.causes import cause_of
from tests.support.databases import migrate, opened

NOBODY = 65534
PASSWORD = "s3cret"


async def cause(url: str) -> str:
    """Returns the cause of the error of a transaction."""
    async with opened(url) as database:
        with pytest.raises(UnavailableError) as raised:
            async with database.write() as tx:
                await tx.connection.exec_driver_sql("UPDATE quota SET tat_us = 0")
    assert raised.value.detail == "The database does not answer."
    assert PASSWORD not in raised.value.cause
    return raised.value.cause


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1", "Postgres at 127.0.0.1:1 refuses the connection. Start it, "),
        ("[::1]:1", "Postgres at [::1]:1 "),
        ("nowhere.invalid", "Postgres at nowhere.invalid:5432 cannot be found: the host name is not known. "),
    ],
)
async def test_unreachable_server_is_named(address: str, expected: str) -> None:
    assert (await cause(f"postgresql+asyncpg://anna:{PASSWORD}@{address}/db")).startswith(expected)


async def test_each_of_several_servers_is_named() -> None:
    url = f"postgresql+asyncpg://anna:{PASSWORD}@/db?host=127.0.0.1:1&host=localhost:2"

    assert (await cause(url)).startswith("Postgres at 127.0.0.1:1, localhost:2 ")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"database": "missing"}, "has no database missing. Create it, or correct DATABASE_URL."),
        ({"username": "nobody"}, "does not let nobody connect. "),
    ],
)
async def test_rejected_connection_is_explained(postgres_server: str, changes: dict[str, Any], expected: str) -> None:
    url = make_url(postgres_server).set(password=PASSWORD, **changes)

    assert expected in await cause(url.render_as_string(hide_password=False))


@asynccontextmanager
async def refusing(sqlstate: str) -> AsyncIterator[int]:
    """Runs a Postgres that answers every connection with this error; yields its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        fields = f"SFATAL\0VFATAL\0C{sqlstate}\0M{PASSWORD}\0\0".encode()
        writer.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [
        ("28P01", "rejects the password of anna. Correct DATABASE_URL."),
        ("53300", "has no free connection. Raise max_connections, or lower DATABASE_POOL_SIZE."),
        ("XX000", "does not answer (XX000)."),
    ],
)
async def test_error_of_the_server_is_explained(sqlstate: str, expected: str) -> None:
    async with refusing(sqlstate) as port:
        found = await cause(f"postgresql+asyncpg://anna:{PASSWORD}@127.0.0.1:{port}/db?ssl=disable")

    assert found == f"Postgres at 127.0.0.1:{port} {expected}"


async def test_missing_table_is_named_by_its_sqlstate(postgres_server: str) -> None:
    assert (await cause(postgres_server)).endswith("does not answer (42P01).")


async def test_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "junk.db").write_bytes(b"x" * 5000)
    (tmp_path / "folder.db").mkdir()

    found = [await cause(f"sqlite+aiosqlite:///{tmp_path}/{name}") for name in ("junk.db", "folder.db", "no/x.db")]

    assert found == [
        f"The database {tmp_path}/junk.db is not a SQLite database. Correct DATABASE_URL, or restore the file.",
        (
            f"The database {tmp_path}/folder.db cannot be opened. "
            "Check that it is a file, and the permissions of its folder."
        ),
        f"The database {tmp_path}/no/x.db cannot be created: its folder does not exist.",
    ]


@pytest.fixture
def read_only() -> Iterator[Path]:
    """Yields a folder that other users can read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def without_permission(folder: Path) -> Iterator[None]:
    """Makes the folder and its files read-only: for root, who may always write, by another user id."""
    if is_root := os.geteuid() == 0:
        os.seteuid(NOBODY)
    else:
        folder.chmod(0o555)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        else:
            folder.chmod(0o755)


@pytest.mark.parametrize("is_new", [True, False])
async def test_read_only_folder_is_named(read_only: Path, *, is_new: bool) -> None:
    url = f"sqlite+aiosqlite:///{read_only}/x.db"
    if not is_new:
        await migrate(url)
        (read_only / "x.db").chmod(0o644)

    with without_permission(read_only):
        found = await cause(url)

    assert found.startswith(f"The database {read_only}/x.db ")
    assert ("this user may not write to its folder" if is_new else "or its folder is read-only") in found


def test_relative_path_is_shown_as_an_absolute_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    found = cause_of(OSError(), URL.create("sqlite+aiosqlite", database="x.db"))

    assert found == f"The database {tmp_path}/x.db does not answer (OSError)."
