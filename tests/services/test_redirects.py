"""Hints of browsers are queued: they are bounded, written only if needed, and dropped when the service stops."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.domain import lifecycle
from app.domain.verification import TokenFacts
from app.sealing.keyring import KeyRing
from app.services.intake import IntakeService
from app.services.redirects import RedirectService
from app.services.rule_settings import RuleSettings, RulesSettings
from app.storage.database import Database
from tests.support.redirects import redirect_service, wait_for_hints
from tests.support.rows import find_row
from tests.support.service import actor

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)


@pytest.fixture
async def redirect(database: Database, tmp_path: Path) -> AsyncIterator[RedirectService]:
    service = redirect_service(database, KeyRing.create(tmp_path / "keyring.json"), lambda: NOW)
    yield service
    await service.aclose()


@pytest.fixture
def intake(redirect: RedirectService) -> IntakeService:
    return redirect.intake


async def received_at(database: Database, biz_token: str) -> datetime | None:
    async with database.read() as tx:
        found = await find_row(tx, biz_token)
    assert found
    return found.received_at


async def test_flood_of_unknown_tokens_needs_no_write_transaction(
    redirect: RedirectService, database: Database
) -> None:
    async with database.write():
        for number in range(3000):
            await redirect.accept(f"unknown-{number}", "")
        await wait_for_hints()

    assert await row_count(database) == 0


async def row_count(database: Database) -> int:
    async with database.read() as tx:
        count: int = (await tx.connection.exec_driver_sql("SELECT count(*) FROM verification")).scalar_one()
    return count


async def test_hint_for_a_due_token_needs_no_write_transaction(
    redirect: RedirectService, intake: IntakeService, database: Database
) -> None:
    await intake.register(actor(), "registered", TokenFacts())
    await redirect.accept("registered", "")
    await wait_for_hints()
    async with database.write():
        await redirect.accept("registered", "")
        await wait_for_hints()

    assert await received_at(database, "registered") == NOW


async def test_hints_beyond_the_limit_are_dropped(
    redirect: RedirectService, intake: IntakeService, database: Database
) -> None:
    for biz_token in ("early", "late"):
        await intake.register(actor(), biz_token, TokenFacts())

    await redirect.accept("early", "")
    for number in range(1000):
        await redirect.accept(f"unknown-{number}", "")
    await redirect.accept("late", "")
    await wait_for_hints()

    assert (await received_at(database, "early"), await received_at(database, "late")) == (NOW, None)


async def test_each_of_several_states_is_accepted_once(redirect: RedirectService, database: Database) -> None:
    states = [redirect.issue(actor(), None)[0] for _ in range(3)]
    for number in range(2):
        for state in states:
            await redirect.accept(f"token-{number}-{states.index(state)}", state)
    await wait_for_hints()

    assert await row_count(database) == 3


async def test_pending_hints_are_dropped_on_close(
    redirect: RedirectService, intake: IntakeService, database: Database
) -> None:
    await intake.register(actor(), "registered", TokenFacts())
    await redirect.accept("registered", "")
    await redirect.aclose()
    await wait_for_hints()

    assert await received_at(database, "registered") is None


async def test_database_failure_loses_pending_hints_only(
    redirect: RedirectService, intake: IntakeService, database: Database
) -> None:
    await intake.register(actor(), "registered", TokenFacts())
    async with database.write() as tx:
        await tx.connection.exec_driver_sql("ALTER TABLE verification RENAME TO renamed")
    await redirect.accept("registered", "")
    await wait_for_hints()
    async with database.write() as tx:
        await tx.connection.exec_driver_sql("ALTER TABLE renamed RENAME TO verification")
    await redirect.accept("registered", "")
    await wait_for_hints()

    assert await received_at(database, "registered") == NOW


async def test_state_of_a_refused_redirect_leaves_nothing_behind(
    redirect: RedirectService, intake: IntakeService, database: Database
) -> None:
    late, foreign, kept = [redirect.issue(actor(), None)[0] for _ in range(3)]
    await redirect.accept("kept", kept)
    await intake.register(actor(), "erased", TokenFacts())
    async with database.write() as tx:
        erased = (await tx.verifications.lock_all([("default", "erased")]))["default", "erased"]
        await tx.verifications.save(erased, lifecycle.erased(erased, NOW), NOW)
    await redirect.accept("erased", late)
    # The rule was closed to the client since the state was issued.
    rules = {"1": RuleSettings(redirect_state=True, clients=["other"])}
    intake.rules = redirect.rules = RulesSettings(faceid_rule_id="1", rules=rules)
    await redirect.accept("unknown", foreign)
    await wait_for_hints()

    async with database.read() as tx:
        left = (await tx.connection.exec_driver_sql("SELECT biz_token FROM redirect_nonce")).scalars().all()
    assert left == ["kept"]
