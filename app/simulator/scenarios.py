r"""What the simulator plays, and how to ask for it.

A BizToken may begin with the scenario to play; DetectAuth's Extra may ask for one, as `scenario=…`, for the token that
is handed out; the simulator's option `scenario` is for all that ask for nothing. A scenario is one or more steps joined
by hyphens, and what follows them is free to tell tokens apart: `passed-0001`, `failed-2016-anna`, `unfinished-2-bob`.

    step                 what a call gets
    -------------------  ------------------------------------------------------------------------------------------
    passed               the person passed: text, pictures, video
    failed[-CODE]        the person failed with this ErrCode (2016 unless said: similarity too low); 1xxx is a matter
                         of liveness, 2xxx of comparison
    unfinished[-N]       ErrCode null and everything else absent, on the first N calls (on all unless said)
    null17               the same with ErrCode 17
    novideo              passed, but the key VideoData is missing
    slashes              passed, with every slash escaped as `\/` inside DetectInfo
    throttled[-N]        RequestLimitExceeded, on the first N calls
    expired              InvalidParameterValue.BizTokenExpired
    illegal              InvalidParameter
    error-CODE           that error: error-InternalError, error-UnauthorizedOperation.Arrears
    http502              an HTML page with this status, any of 400 to 599
    garbage              status 200 and a body that is not JSON
    cut                  half of the announced body, then the connection is closed
    latency-MS           not an answer: makes the calls this much slower and leaves the answer to the next step

`-xN` after any step limits it to N calls; then the next step takes over, after the last one the option's scenario, and
after that `passed`: `http502-x2-unfinished-1-failed-1001-carl` answers 502 twice, "not finished" once, then failed.
Calls are counted per BizToken over GetDetectInfo and GetDetectInfoEnhanced; those refused for their signature, their
parameters or the quota do not count.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_STEP = re.compile(
    r"(?:(?P<plain>passed|null17|novideo|slashes|expired|illegal|garbage|cut|http[45][0-9]{2})"
    r"|(?P<numbered>failed|unfinished|throttled|latency)(?:-(?P<number>[0-9]{1,6}))?"
    r"|error-(?P<code>[A-Z][A-Za-z]*(?:\.[A-Z][A-Za-z]*)*))"
    r"(?:-x(?P<calls>[0-9]{1,6}))?(?:-|$)"
)
_ERRORS = {
    "throttled": "RequestLimitExceeded",
    "expired": "InvalidParameterValue.BizTokenExpired",
    "illegal": "InvalidParameter",
}
_VERDICTS = {"passed", "failed", "novideo", "slashes"}
_SIMILARITY_TOO_LOW = 2016
_NOT_FINISHED = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What one call gets.

    `error` is Tencent's error code where that is the answer; `err_code` the verdict in the text otherwise. `latency_ms`
    comes first in any case.
    """

    name: str = "passed"
    err_code: int | None = 0
    error: str | None = None
    latency_ms: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether the person has been through it, with whatever verdict."""
        return self.err_code not in {None, _NOT_FINISHED}

    @property
    def is_charged(self) -> bool:
        """Whether there was a verdict to charge for; errors and faults of the transport tell of none."""
        return self.name in _VERDICTS and self.is_finished


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    number: int | None
    code: str | None
    calls: int | None

    def scenario(self, latency_ms: int) -> Scenario:
        """What the step plays, after that delay."""
        err_codes = {
            "failed": _SIMILARITY_TOO_LOW if self.number is None else self.number,
            "unfinished": None,
            "null17": _NOT_FINISHED,
        }
        return Scenario(
            name=self.name,
            err_code=err_codes.get(self.name, 0),
            error=self.code or _ERRORS.get(self.name),
            latency_ms=latency_ms,
        )


def is_scenario(text: str) -> bool:
    """Whether the text begins with a step."""
    return _STEP.match(text) is not None


def scenario_of(text: str, *, call: int = 1, default: str = "passed") -> Scenario:
    """What the scenario in `text`, continued by `default`, plays on the call of that number; the first is 1."""
    latency_ms = 0
    for step in (*_steps(text), *_steps(default)):
        is_on = step.calls is None or call <= step.calls
        if step.name == "latency":
            latency_ms += (step.number or 0) if is_on else 0
        elif is_on:
            return step.scenario(latency_ms)
        else:
            call -= step.calls or 0
    return Scenario(latency_ms=latency_ms)


def scenario_in_extra(extra: str) -> str:
    """The scenario that DetectAuth's Extra asks for as `scenario=…`, or nothing."""
    match = re.search(r"\bscenario=([\w.-]+)", extra, re.ASCII)
    return match[1] if match else ""


def _steps(text: str) -> Iterator[_Step]:
    end = 0
    while match := _STEP.match(text, end):
        yield _step(match)
        end = match.end()


def _step(match: re.Match[str]) -> _Step:
    name = match["plain"] or match["numbered"] or "error"
    number = int(match["number"]) if match["number"] else None
    calls = int(match["calls"]) if match["calls"] else None
    if name in {"unfinished", "throttled"}:
        calls = number if calls is None else calls
    return _Step(name, number, match["code"], calls)
