"""Concurrent notices are stored in batches, with the same results as one after the other."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from random import Random

from app.config import Settings
from app.domain.api_key import Caller, Scope
from app.domain.verification import TokenFacts, Verification
from app.errors import ConflictError, InvalidRequestError
from app.factory import open_services
from app.services.intake import Accepted
from app.services.rule_settings import RuleSettings
from tests.support.service import actor, changed

SHOP, BANK = (
    actor(Caller(id=client, name=client, client=client, scopes=frozenset({Scope.CALLBACKS_WRITE})))
    for client in ("shop", "bank")
)
NOW = datetime(2026, 11, 25, 8, tzinfo=UTC)


async def test_invalid_notice_does_not_affect_others_of_its_batch(settings: Settings) -> None:
    settings = changed(settings, faceid_rule_id=None)
    async with open_services(settings, clock=lambda: NOW) as services:
        intake = services.intake
        await intake.register(SHOP, "known", TokenFacts(rule_id="1", subject_ref="loan-1"))

        answers = await asyncio.gather(
            intake.call_back(SHOP, "new", "1", None),
            intake.register(SHOP, "known", TokenFacts(subject_ref="loan-2")),
            intake.call_back(BANK, "known", None, None),
            intake.call_back(SHOP, "known", None, None),
            intake.call_back(SHOP, "without-rule", None, None),
            intake.register(SHOP, "new", TokenFacts(subject_ref="loan-3")),
            intake.call_back(BANK, "new", "1", None),
            return_exceptions=True,
        )
        async with services.database.read() as tx:
            rows = {row.owner: row for row in await tx.verifications.find_all(["known", "new", "without-rule"])}

    assert [type(answer) for answer in answers] == [
        Verification,
        ConflictError,
        InvalidRequestError,
        Verification,
        InvalidRequestError,
        Accepted,
        Verification,
    ]
    assert {owner: (row.subject_ref, row.registered_at, row.received_at) for owner, row in rows.items()} == {
        ("shop", "known"): ("loan-1", NOW, NOW),
        ("shop", "new"): ("loan-3", NOW, NOW),
        ("bank", "new"): (None, None, NOW),
    }


async def test_redirect_with_a_used_state_does_not_affect_the_callback_of_its_batch(settings: Settings) -> None:
    settings = changed(settings, rules={"1": RuleSettings(redirect_state=True)})
    async with open_services(settings) as one, open_services(settings) as other:
        signed_state, _ = one.redirects.issue(SHOP, "1")
        await one.redirects.accept("first", signed_state)

        # The other process does not know yet that the state is used.
        _, called_back = await asyncio.gather(
            other.redirects.accept("second", signed_state), other.intake.call_back(SHOP, "second", "1", None)
        )

    assert called_back.biz_token == "second"


async def test_concurrent_registrations_by_two_processes_agree(settings: Settings) -> None:
    dice, tokens = Random(5), [f"token-{number}" for number in range(30)]
    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(open_services(settings)) for _ in range(2)]
        registrations = [(services.intake, token) for services in both for token in tokens * 5]
        dice.shuffle(registrations)

        answers = await asyncio.gather(
            *(intake.register(SHOP, token, TokenFacts(rule_id="1")) for intake, token in registrations)
        )

    assert Counter(answer.verification.biz_token for answer in answers) == dict.fromkeys(tokens, 10)
    assert Counter(answer.verification.biz_token for answer in answers if answer.is_new) == dict.fromkeys(tokens, 1)
    assert len({answer.verification.id for answer in answers}) == len(tokens)
