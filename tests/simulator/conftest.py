"""Fixtures: one live simulator without rate limits per session, and one in process per test."""

from collections.abc import Iterator

import pytest

from simulator.options import SimulatorOptions
from simulator.server import create_simulator
from tests.support.simulator import Caller, Clock, LiveSimulator, live_simulator


@pytest.fixture(scope="session")
def live() -> Iterator[LiveSimulator]:
    with live_simulator() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def caller(clock: Clock) -> Caller:
    return Caller(create_simulator(SimulatorOptions(clock=clock)))
