"""API keys: creation, authentication, networks, expiry, revocation and the cache of each process."""

import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
import structlog
from sqlalchemy import select, text, update

from app.domain.api_key import Scope, digest
from app.errors import NotFoundError, UnauthenticatedError
from app.sealing.keyring import KeyRing
from app.services.api_keys import ApiKeyService
from app.services.audit import AuditService
from app.storage.database import Database
from app.storage.tables import api_key
from tests.support.clocks import FixedClock
from tests.support.service import actor

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SCOPES = [Scope.RESULTS_READ, Scope.MEDIA_READ]


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def access(database: Database, clock: FixedClock, tmp_path: Path) -> ApiKeyService:
    return new_service(database, clock, tmp_path)


@pytest.fixture
def other_process(database: Database, clock: FixedClock, tmp_path: Path) -> ApiKeyService:
    """The service of another process on the same database and key ring."""
    return new_service(database, clock, tmp_path)


def new_service(database: Database, clock: FixedClock, folder: Path) -> ApiKeyService:
    keyring = KeyRing.create(folder / "keyring.json")
    audit = AuditService(database=database, keyring=keyring, clock=clock)
    return ApiKeyService(database=database, keyring=keyring, audit=audit, clock=clock)


async def test_new_key_is_accepted_and_listed(access: ApiKeyService) -> None:
    key, key_text = await access.create(actor(), "till", SCOPES, client="bank", valid_for=timedelta(days=1))

    assert (key.name, key.client, key.scopes, key.expires_at) == (
        "till",
        "bank",
        frozenset(SCOPES),
        NOW + timedelta(days=1),
    )
    for _ in range(2):  # then from the cache
        assert await access.authenticate(key_text) == key
    assert await access.list(actor()) == [key]


async def test_secret_and_its_digest_are_not_stored_in_clear(access: ApiKeyService, database: Database) -> None:
    key, key_text = await access.create(actor(), "till", SCOPES, client="bank", valid_for=timedelta(days=1))

    async with database.read() as tx:
        stored = (await tx.connection.execute(text("SELECT * FROM api_key"))).one()
    secret = key_text.split("_")[2][:48]
    assert not any(hidden in f"{stored} {key}" for hidden in (secret, str(digest(secret))[2:-1]))


@pytest.mark.parametrize("column", ["client", "scopes", "expires_at", "name"])
async def test_key_with_a_value_changed_in_the_database_is_rejected(
    access: ApiKeyService, database: Database, column: str
) -> None:
    _, key_text = await access.create(actor(), "till", SCOPES, client="bank", valid_for=timedelta(days=1))
    other, _ = await access.create(actor(), "other", [Scope.ADMIN], client="shop", valid_for=timedelta(days=9))
    other_value = select(api_key.c[column]).where(api_key.c.id == other.id).scalar_subquery()

    async with database.write() as tx:
        await tx.connection.execute(update(api_key).where(api_key.c.id != other.id).values({column: other_value}))

    with pytest.raises(UnauthenticatedError):
        await access.authenticate(key_text)


async def test_text_that_is_not_a_known_key_is_rejected(access: ApiKeyService) -> None:
    _, one = await access.create(actor(), "one", SCOPES, client="bank", valid_for=timedelta(days=1))
    _, other = await access.create(actor(), "other", SCOPES, client="bank", valid_for=timedelta(days=1))
    await access.authenticate(one)
    crossed = f"{one[:16]}{other[16:]}"

    for key_text in ("", "Bearer", one[:-1], f"{one}\n", one.upper(), one.replace("frk", "frx"), crossed):
        with pytest.raises(UnauthenticatedError):
            await access.authenticate(key_text)


async def test_key_outside_its_networks_is_rejected(access: ApiKeyService) -> None:
    key, key_text = await access.create(
        actor(), "till", SCOPES, client="bank", valid_for=timedelta(days=1), networks=[ip_network("10.0.0.0/8")]
    )

    assert await access.authenticate(key_text, address="10.1.2.3") == key
    for address in ("192.0.2.1", None):
        with pytest.raises(UnauthenticatedError) as outside:
            await access.authenticate(key_text, address=address)
        with pytest.raises(UnauthenticatedError) as unknown:
            await access.authenticate("unknown", address=address)
        assert str(outside.value) == str(unknown.value)


async def test_expired_key_is_rejected_even_while_cached(access: ApiKeyService, clock: FixedClock) -> None:
    _, key_text = await access.create(actor(), "till", SCOPES, client="bank", valid_for=timedelta(days=1))
    await access.authenticate(key_text)

    clock.now = NOW + timedelta(days=1)

    with pytest.raises(UnauthenticatedError):
        await access.authenticate(key_text)


async def test_revoked_key_is_rejected_immediately_by_the_revoking_process(access: ApiKeyService) -> None:
    key, key_text = await access.create(actor(), "till", SCOPES, client="bank", valid_for=timedelta(days=1))
    _, bystander = await access.create(actor(), "bystander", SCOPES, client="bank", valid_for=timedelta(days=1))
    await access.authenticate(key_text)

    await access.revoke(actor(), key.id)

    with pytest.raises(UnauthenticatedError):
        await access.authenticate(key_text)
    await access.authenticate(bystander)
    assert [each.revoked_at for each in await access.list(actor()) if each.id == key.id] == [NOW]


async def test_revoking_a_revoked_or_unknown_key_raises_not_found(access: ApiKeyService) -> None:
    key, _ = await access.create(actor(), "till", SCOPES, client="bank", valid_for=timedelta(days=1))
    await access.revoke(actor(), key.id)

    for key_id in (key.id, "unknown"):
        with pytest.raises(NotFoundError):
            await access.revoke(actor(), key_id)


async def test_revocation_survives_every_change_of_the_row(access: ApiKeyService, database: Database) -> None:
    key, key_text = await access.create(actor(), "till", SCOPES, client="bank", valid_for=timedelta(days=1))
    digest_of_the_key = key.sealed_digest

    await access.revoke(actor(), key.id)

    async with database.read() as tx:
        assert (await tx.connection.execute(select(api_key.c.sealed_digest))).scalar_one() == b""
    changes: list[dict[str, object]] = [{"revoked_at": None}, {"sealed_digest": digest_of_the_key}]
    for change in changes:
        async with database.write() as tx:
            await tx.connection.execute(update(api_key).values(change))
        assert not await is_accepted(access, key_text)


async def test_revoked_key_without_a_record_of_it_is_rejected(access: ApiKeyService, database: Database) -> None:
    key, key_text = await access.create(actor(), "till", SCOPES, client="bank", valid_for=timedelta(days=1))
    await access.revoke(actor(), key.id)

    async with database.write() as tx:
        await tx.connection.execute(update(api_key).values(revoked_at=None))
        await tx.connection.execute(text("DELETE FROM audit"))

    with structlog.testing.capture_logs() as logs:
        assert not await is_accepted(access, key_text)
        assert not await is_accepted(access, key_text)
    assert [(entry["event"], entry["key_id"]) for entry in logs] == [("key_altered", key.id)]


async def is_accepted(access: ApiKeyService, key_text: str) -> bool:
    try:
        await access.authenticate(key_text)
    except UnauthenticatedError:
        return False
    return True


async def test_key_revoked_by_another_process_is_rejected_within_5_seconds(
    access: ApiKeyService, other_process: ApiKeyService, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, key_text = await access.create(actor(), "till", SCOPES, client="bank", valid_for=timedelta(days=1))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert await is_accepted(access, key_text)

    await other_process.revoke(actor(), key.id)

    assert not await is_accepted(other_process, key_text)
    assert await is_accepted(access, key_text)  # still cached
    monkeypatch.setattr(time, "monotonic", lambda: now + 5)
    assert not await is_accepted(access, key_text)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_cache_holds_at_most_1000_keys(
    access: ApiKeyService, other_process: ApiKeyService, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, key_text = await access.create(actor(), "till", SCOPES, client="bank", valid_for=timedelta(days=1))
    others = [
        (await access.create(actor(), "other", SCOPES, client="bank", valid_for=timedelta(days=1)))[1]
        for _ in range(1000)
    ]
    # No key leaves the cache because of its age.
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert await is_accepted(access, key_text)
    await other_process.revoke(actor(), key.id)

    for other in others[:-1]:
        await access.authenticate(other)
    assert await is_accepted(access, key_text)  # still cached
    await access.authenticate(others[-1])

    assert not await is_accepted(access, key_text)
