"""What is told at the same time is taken in together, and comes to the same as one after the other."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from random import Random

from app.config import Settings
from app.domain.access import Caller, Scope
from app.domain.verification import Facts, Verification
from app.errors import ConflictError, InvalidRequestError, NotFoundError
from app.factory import open_services
from app.storage.verifications import VerificationStore

SHOP, BANK = (
    Caller(id=client, name=client, client=client, scopes=frozenset({Scope.CALLBACKS_WRITE}))
    for client in ("shop", "bank")
)
NOW = datetime(2026, 11, 25, 8, tzinfo=UTC)


async def test_what_is_wrong_with_one_message_is_told_to_its_sender_alone(settings: Settings) -> None:
    settings = settings.model_copy(update={"faceid_rule_id": None})
    async with open_services(settings, clock=lambda: NOW) as services:
        receive = services.receive
        await receive.register(SHOP, "known", Facts(rule_id="1", subject_ref="loan-1"))

        answers = await asyncio.gather(
            receive.call_back(SHOP, "new", "1", None),
            receive.register(SHOP, "known", Facts(subject_ref="loan-2")),
            receive.call_back(BANK, "known", None, None),
            receive.call_back(SHOP, "known", None, None),
            receive.call_back(SHOP, "without-rule", None, None),
            receive.register(SHOP, "new", Facts(subject_ref="loan-3")),
            receive.call_back(BANK, "new", "1", None),
            return_exceptions=True,
        )
        async with services.database.read() as tx:
            known, new, none = [await VerificationStore().find(tx, token) for token in ("known", "new", "without-rule")]

    assert [type(answer) for answer in answers] == [
        Verification,
        ConflictError,
        NotFoundError,
        Verification,
        InvalidRequestError,
        tuple,
        NotFoundError,
    ]
    assert known is not None
    assert new is not None
    assert none is None
    assert (known.subject_ref, known.registered_at, known.received_at, known.client) == ("loan-1", NOW, NOW, "shop")
    assert (new.subject_ref, new.registered_at, new.received_at, new.client) == ("loan-3", NOW, NOW, "shop")


async def test_two_processes_that_are_told_the_same_in_any_order_agree(settings: Settings) -> None:
    dice, tokens = Random(5), [f"token-{number}" for number in range(30)]
    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(open_services(settings)) for _ in range(2)]
        told = [(services.receive, token) for services in both for token in tokens * 5]
        dice.shuffle(told)

        answers = await asyncio.gather(*(receive.register(SHOP, token, Facts(rule_id="1")) for receive, token in told))

    assert Counter(verification.biz_token for verification, _ in answers) == dict.fromkeys(tokens, 10)
    assert Counter(verification.biz_token for verification, is_new in answers if is_new) == dict.fromkeys(tokens, 1)
    assert len({verification.id for verification, _ in answers}) == len(tokens)
