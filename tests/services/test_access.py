"""A key is shown once, known by its digest, and ends when it should."""

import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from app.domain.access import Scope, digest
from app.errors import NotFoundError, UnauthenticatedError
from app.sealing.keyring import KeyRing
from app.services.access import AccessService
from app.services.audit import AuditService
from app.storage.audit import AuditStore
from app.storage.database import Database
from app.storage.keys import KeyStore
from app.storage.tables import api_key
from tests.support.clocks import FixedClock

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SCOPES = [Scope.RESULTS_READ, Scope.MEDIA_READ]


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def access(database: Database, clock: FixedClock, tmp_path: Path) -> AccessService:
    return of_a_process(database, clock, tmp_path)


@pytest.fixture
def elsewhere(database: Database, clock: FixedClock, tmp_path: Path) -> AccessService:
    """The service of another process on the same database and key ring."""
    return of_a_process(database, clock, tmp_path)


def of_a_process(database: Database, clock: FixedClock, folder: Path) -> AccessService:
    keyring = KeyRing.create(folder / "keyring.json")
    audit = AuditService(database=database, audit=AuditStore(), clock=clock)
    return AccessService(database=database, keys=KeyStore(), keyring=keyring, audit=audit, clock=clock)


async def test_a_new_key_lets_its_holder_in(access: AccessService) -> None:
    key, shown = await access.create("till", SCOPES, client="bank", valid_for=timedelta(days=1))

    assert (key.name, key.client, key.scopes, key.expires_at) == (
        "till",
        "bank",
        frozenset(SCOPES),
        NOW + timedelta(days=1),
    )
    for _ in range(2):  # the second time from memory
        assert await access.authenticate(shown) == key
    assert await access.list() == [key]


async def test_the_secret_is_stored_nowhere(access: AccessService, database: Database) -> None:
    key, shown = await access.create("till", SCOPES, client="bank", valid_for=timedelta(days=1))

    async with database.read() as tx:
        stored = (await tx.execute(text("SELECT * FROM api_key"))).one()
    secret = shown.split("_")[2][:48]
    assert not any(hidden in f"{stored} {key}" for hidden in (secret, str(digest(secret))[2:-1]))


@pytest.mark.parametrize("column", ["client", "scopes", "expires_at", "name"])
async def test_a_key_whose_rights_were_changed_in_the_database_is_none(
    access: AccessService, database: Database, column: str
) -> None:
    _, shown = await access.create("till", SCOPES, client="bank", valid_for=timedelta(days=1))
    other, _ = await access.create("other", [Scope.ADMIN], client="shop", valid_for=timedelta(days=9))
    taken = select(api_key.c[column]).where(api_key.c.id == other.id).scalar_subquery()

    async with database.write() as tx:
        await tx.execute(update(api_key).where(api_key.c.id != other.id).values({column: taken}))

    with pytest.raises(UnauthenticatedError):
        await access.authenticate(shown)


async def test_whoever_shows_something_else_is_kept_out(access: AccessService) -> None:
    _, one = await access.create("one", SCOPES, client="bank", valid_for=timedelta(days=1))
    _, other = await access.create("other", SCOPES, client="bank", valid_for=timedelta(days=1))
    await access.authenticate(one)
    crossed = f"{one[:16]}{other[16:]}"

    for shown in ("", "Bearer", one[:-1], f"{one}\n", one.upper(), one.replace("frk", "frx"), crossed):
        with pytest.raises(UnauthenticatedError):
            await access.authenticate(shown)


async def test_a_key_is_unknown_outside_its_networks(access: AccessService) -> None:
    key, shown = await access.create(
        "till", SCOPES, client="bank", valid_for=timedelta(days=1), networks=[ip_network("10.0.0.0/8")]
    )

    assert await access.authenticate(shown, address="10.1.2.3") == key
    for address in ("192.0.2.1", None):
        with pytest.raises(UnauthenticatedError) as elsewhere:
            await access.authenticate(shown, address=address)
        with pytest.raises(UnauthenticatedError) as unknown:
            await access.authenticate("unknown", address=address)
        assert str(elsewhere.value) == str(unknown.value)


async def test_a_key_ends_at_its_end_even_while_it_is_remembered(access: AccessService, clock: FixedClock) -> None:
    _, shown = await access.create("till", SCOPES, client="bank", valid_for=timedelta(days=1))
    await access.authenticate(shown)

    clock.now = NOW + timedelta(days=1)

    with pytest.raises(UnauthenticatedError):
        await access.authenticate(shown)


async def test_a_revoked_key_is_refused_at_once_where_it_was_revoked(access: AccessService) -> None:
    key, shown = await access.create("till", SCOPES, client="bank", valid_for=timedelta(days=1))
    _, bystander = await access.create("bystander", SCOPES, client="bank", valid_for=timedelta(days=1))
    await access.authenticate(shown)

    await access.revoke(key.id)

    with pytest.raises(UnauthenticatedError):
        await access.authenticate(shown)
    await access.authenticate(bystander)
    assert [each.revoked_at for each in await access.list() if each.id == key.id] == [NOW]


async def test_only_a_living_key_can_be_revoked(access: AccessService) -> None:
    key, _ = await access.create("till", SCOPES, client="bank", valid_for=timedelta(days=1))
    await access.revoke(key.id)

    for key_id in (key.id, "unknown"):
        with pytest.raises(NotFoundError):
            await access.revoke(key_id)


async def is_let_in(access: AccessService, shown: str) -> bool:
    try:
        await access.authenticate(shown)
    except UnauthenticatedError:
        return False
    return True


async def test_key_revoked_elsewhere_is_refused_within_five_seconds(
    access: AccessService, elsewhere: AccessService, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, shown = await access.create("till", SCOPES, client="bank", valid_for=timedelta(days=1))
    assert await is_let_in(access, shown)
    now = time.monotonic

    await elsewhere.revoke(key.id)

    assert not await is_let_in(elsewhere, shown)
    assert await is_let_in(access, shown)  # it was read a moment ago
    monkeypatch.setattr(time, "monotonic", lambda: now() + 5)
    assert not await is_let_in(access, shown)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_process_remembers_at_most_a_thousand_keys(access: AccessService, elsewhere: AccessService) -> None:
    key, shown = await access.create("till", SCOPES, client="bank", valid_for=timedelta(days=1))
    others = [
        (await access.create("other", SCOPES, client="bank", valid_for=timedelta(days=1)))[1] for _ in range(1000)
    ]
    assert await is_let_in(access, shown)
    await elsewhere.revoke(key.id)

    for other in others[:-1]:
        await access.authenticate(other)
    assert await is_let_in(access, shown)  # still remembered
    await access.authenticate(others[-1])

    assert not await is_let_in(access, shown)
