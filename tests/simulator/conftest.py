"""One live simulator for all tests that need a server, without quota; one in process for each other test."""

from collections.abc import Iterator

import pytest

from app.simulator.options import SimulatorOptions
from app.simulator.server import create_simulator
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
