"""Fixtures of the services: a receiver of webhooks."""

from collections.abc import AsyncIterator

import pytest

from tests.support.receiver import Receiver, receiving


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as server:
        yield server
