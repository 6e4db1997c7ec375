"""The grammar of scenarios."""

from dataclasses import replace

import pytest

from simulator.options import SimulatorOptions
from simulator.scenarios import Scenario, is_scenario, scenario_in_extra, scenario_of

PASSED = Scenario(name="passed")
THROTTLED = Scenario(name="throttled", error="RequestLimitExceeded")
UNFINISHED = Scenario(name="unfinished", err_code=None)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("passed", [PASSED]),
        ("passed-0001", [PASSED]),
        ("CE661F1A-0F1E-45BD-BE13-34C05CEA7681", [PASSED]),
        ("passedX", [PASSED]),
        ("failed-2016-anna", [Scenario(name="failed", err_code=2016)]),
        ("failed-anna", [Scenario(name="failed", err_code=2016)]),
        ("failed-1001", [Scenario(name="failed", err_code=1001)]),
        ("unfinished-2-bob", [UNFINISHED, UNFINISHED, PASSED]),
        ("unfinished-bob", [UNFINISHED, UNFINISHED]),
        ("null17", [Scenario(name="null17", err_code=17)]),
        ("throttled-3-abc", [THROTTLED, THROTTLED, THROTTLED, PASSED]),
        ("expired-abc", [Scenario(name="expired", error="InvalidParameterValue.BizTokenExpired")]),
        ("illegal", [Scenario(name="illegal", error="InvalidParameter")]),
        ("error-InternalError-x1-a", [Scenario(name="error", error="InternalError"), PASSED]),
        ("error-UnauthorizedOperation.Arrears", [Scenario(name="error", error="UnauthorizedOperation.Arrears")]),
        ("latency-500-abc", [Scenario(name="passed", latency_ms=500)]),
        ("latency-500-x1-throttled-1", [replace(THROTTLED, latency_ms=500), PASSED]),
        ("http502-x1-unfinished-1-cut", [Scenario(name="http502"), UNFINISHED, Scenario(name="cut")]),
    ],
)
def test_calls_for_a_token_play_its_steps_in_order(text: str, calls: list[Scenario]) -> None:
    assert [scenario_of(text, call=number) for number in range(1, len(calls) + 1)] == calls


def test_default_scenario_follows_the_last_step_of_the_token() -> None:
    played = [scenario_of("throttled-1-abc", call=call, default="unfinished-1-failed-1001-x1") for call in range(1, 5)]

    assert played == [THROTTLED, UNFINISHED, Scenario(name="failed", err_code=1001), PASSED]


@pytest.mark.parametrize(
    ("extra", "scenario"),
    [
        ("scenario=failed-2016", "failed-2016"),
        ('{"loan": 1, "scenario=error-A.B"}', "error-A.B"),
        ("no wish", ""),
    ],
)
def test_extra_selects_a_scenario(extra: str, scenario: str) -> None:
    assert scenario_in_extra(extra) == scenario


@pytest.mark.parametrize("text", ["", "nothing", "http302", "error-lower", "cuts"])
def test_unknown_scenario_is_rejected_as_an_option(text: str) -> None:
    assert not is_scenario(text)
    with pytest.raises(ValueError, match="Unknown scenario"):
        SimulatorOptions(scenario=text)
