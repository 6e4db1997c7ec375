"""Hints of browsers are gathered: no flood of them asks for the writer, grows without bound or outlives the service."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.domain.access import OPERATOR
from app.domain.verification import Facts
from app.sealing.keyring import KeyRing
from app.services.newcomers import Newcomers
from app.services.receive import ReceiveService, ReceiveSettings
from app.services.redirect import RedirectService
from app.services.rules import RuleSettings, RulesSettings
from app.services.vault import Vault
from app.storage.database import Database
from app.storage.signals import Signals
from app.storage.verifications import VerificationStore

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
RULES = RulesSettings(rules={"1": RuleSettings(redirect_state=True)})
SETTINGS = ReceiveSettings(faceid_rule_id="1")
SECONDS = 20


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(KeyRing.create(tmp_path / "keyring.json"))


@pytest.fixture
async def redirect(database: Database, vault: Vault) -> AsyncIterator[RedirectService]:
    service = RedirectService(
        settings=SETTINGS,
        rules=RULES,
        newcomers=Newcomers(RULES, vault),
        keyring=vault.keyring,
        database=database,
        verifications=VerificationStore(),
        signals=Signals(),
        clock=lambda: NOW,
    )
    yield service
    await service.aclose()


@pytest.fixture
def receive(database: Database, vault: Vault) -> ReceiveService:
    return ReceiveService(
        settings=SETTINGS,
        newcomers=Newcomers(RULES, vault),
        vault=vault,
        database=database,
        verifications=VerificationStore(),
        signals=Signals(),
        clock=lambda: NOW,
    )


async def looked_at() -> None:
    """Returns when all hints have been looked at."""
    async with asyncio.timeout(SECONDS):
        while tasks := [task for task in asyncio.all_tasks() if task.get_name() == "hints"]:
            await asyncio.wait(tasks)


async def received_at(database: Database, biz_token: str) -> datetime | None:
    async with database.read() as tx:
        found = await VerificationStore().find(tx, biz_token)
    assert found
    return found.received_at


async def test_a_flood_of_hints_needs_no_writer(redirect: RedirectService, database: Database) -> None:
    async with database.write():
        for number in range(3000):
            await redirect.redirected(f"unknown-{number}", "")
        await looked_at()

    assert await row_count(database) == 0


async def row_count(database: Database) -> int:
    async with database.read() as tx:
        count: int = (await tx.exec_driver_sql("SELECT count(*) FROM verification")).scalar_one()
    return count


async def test_what_is_due_already_is_not_written_again(
    redirect: RedirectService, receive: ReceiveService, database: Database
) -> None:
    await receive.register(OPERATOR, "registered", Facts())
    await redirect.redirected("registered", "")
    await looked_at()
    async with database.write():
        await redirect.redirected("registered", "")
        await looked_at()

    assert await received_at(database, "registered") == NOW


async def test_hints_beyond_the_bound_are_dropped(
    redirect: RedirectService, receive: ReceiveService, database: Database
) -> None:
    for biz_token in ("early", "late"):
        await receive.register(OPERATOR, biz_token, Facts())

    await redirect.redirected("early", "")
    for number in range(1000):
        await redirect.redirected(f"unknown-{number}", "")
    await redirect.redirected("late", "")
    await looked_at()

    assert (await received_at(database, "early"), await received_at(database, "late")) == (NOW, None)


async def test_the_last_state_of_many_is_spent_too(redirect: RedirectService, database: Database) -> None:
    states = [redirect.issue(OPERATOR, None)[0] for _ in range(3)]
    for number in range(2):
        for state in states:
            await redirect.redirected(f"token-{number}-{states.index(state)}", state)
    await looked_at()

    assert await row_count(database) == 3


async def test_what_was_not_looked_at_yet_ends_with_the_service(
    redirect: RedirectService, receive: ReceiveService, database: Database
) -> None:
    await receive.register(OPERATOR, "registered", Facts())
    await redirect.redirected("registered", "")
    await redirect.aclose()
    await looked_at()

    assert await received_at(database, "registered") is None


async def test_a_database_that_fails_costs_the_hints_and_nothing_else(
    redirect: RedirectService, receive: ReceiveService, database: Database
) -> None:
    await receive.register(OPERATOR, "registered", Facts())
    async with database.write() as tx:
        await tx.exec_driver_sql("ALTER TABLE verification RENAME TO elsewhere")
    await redirect.redirected("registered", "")
    await looked_at()
    async with database.write() as tx:
        await tx.exec_driver_sql("ALTER TABLE elsewhere RENAME TO verification")
    await redirect.redirected("registered", "")
    await looked_at()

    assert await received_at(database, "registered") == NOW
