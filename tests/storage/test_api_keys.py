"""Rows of API keys."""

from dataclasses import replace
from datetime import datetime, timedelta
from ipaddress import ip_network

from app.domain.api_key import ApiKey, Scope
from app.storage.database import Database
from tests.support.rows import NOW

KEY = ApiKey(
    id="b",
    name="收银台",
    client="bank",
    scopes=frozenset(Scope),
    sealed_digest=b"sealed",
    created_at=NOW,
    expires_at=NOW + timedelta(days=90),
)


async def add(database: Database, key: ApiKey) -> None:
    async with database.write() as tx:
        await tx.api_keys.add(key)


async def find(database: Database, name: str) -> ApiKey | None:
    async with database.read() as tx:
        return await tx.api_keys.find(name)


async def revoke(database: Database, name: str, now: datetime) -> bool:
    async with database.write() as tx:
        return await tx.api_keys.revoke(name, now)


async def test_key_is_read_as_it_was_written(database: Database) -> None:
    revoked = replace(KEY, id="r", scopes=frozenset(), revoked_at=NOW)
    confined = replace(KEY, id="n", networks=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")))
    for key in (KEY, revoked, confined):
        await add(database, key)

        assert await find(database, key.id) == key
    assert await find(database, "unknown") is None


async def test_keys_are_listed_oldest_first(database: Database) -> None:
    oldest, same_age = replace(KEY, id="z", created_at=NOW - timedelta(days=1)), replace(KEY, id="a")
    for key in (KEY, oldest, same_age):
        await add(database, key)

    async with database.read() as tx:
        assert await tx.api_keys.list() == [oldest, same_age, KEY]


async def test_key_is_revoked_once(database: Database) -> None:
    await add(database, KEY)
    await add(database, replace(KEY, id="bystander"))

    answers = [await revoke(database, name, NOW + timedelta(days=day)) for day, name in enumerate(["b", "b", "nobody"])]

    assert answers == [True, False, False]
    assert await find(database, "b") == replace(KEY, revoked_at=NOW, sealed_digest=b"")
    assert await find(database, "bystander") == replace(KEY, id="bystander")
