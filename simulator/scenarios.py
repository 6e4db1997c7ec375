r"""The grammar of scenarios: how a call selects its answer.

A scenario comes from the start of the BizToken, or from `scenario=…` in DetectAuth's Extra for the token it returns.
Tokens without one play the simulator's option `scenario`. A scenario is one or more steps joined by hyphens. Text after
the last step is ignored and keeps tokens unique: `passed-0001`, `failed-2016-anna`, `unfinished-2-bob`.

    step                 answer to a call
    -------------------  ------------------------------------------------------------------------------------------
    passed               the person passed: text, pictures, video
    failed[-CODE]        the person failed with this ErrCode, by default 2016 (similarity too low); 1xxx is a liveness
                         failure, 2xxx a comparison failure
    unfinished[-N]       ErrCode null and everything else absent, on the first N calls (by default on all)
    null17               the same with ErrCode 17
    novideo              passed, but the key VideoData is missing
    slashes              passed, with every slash escaped as `\/` inside DetectInfo
    mime                 passed, with base64 in lines of 76 characters
    address              passed, with the address of a file in a bucket instead of the video
    quoting              failed with 2006, and all messages quote the name and number of the person
    intention[-CODE]     passed, and GetDetectInfoEnhanced returns an intention with the negative of this code, by
                         default 0 (confirmed): intention-301 is not confirmed
    throttled[-N]        RequestLimitExceeded, on the first N calls (by default on all)
    expired              InvalidParameterValue.BizTokenExpired
    illegal              InvalidParameter
    error-CODE           that error: error-InternalError, error-UnauthorizedOperation.Arrears
    http502              an HTML page with this status, any of 400 to 599
    garbage              status 200 and a body that is not JSON
    cut                  half of the announced body, then the connection is closed
    latency-MS           no answer of its own: delays the answer of the next step by this many milliseconds

`-xN` after any step limits it to N calls. Then the next step applies, after the last one the option's scenario, and
after that `passed`: `http502-x2-unfinished-1-failed-1001-carl` answers 502 twice, "not finished" once, then failed.
Calls are counted per BizToken over GetDetectInfo and GetDetectInfoEnhanced. Calls rejected for their signature, their
parameters or the rate limit do not count.
"""

import re
from dataclasses import dataclass

_STEP = re.compile(
    r"(?:(?P<plain>passed|null17|novideo|slashes|mime|address|quoting|expired|illegal|garbage|cut|http[45][0-9]{2})"
    r"|(?P<numbered>failed|unfinished|throttled|latency|intention)(?:-(?P<number>[0-9]{1,6}))?"
    r"|error-(?P<code>[A-Z][A-Za-z]*(?:\.[A-Z][A-Za-z]*)*))"
    r"(?:-x(?P<calls>[0-9]{1,6}))?(?:-|$)"
)
_ERRORS = {
    "throttled": "RequestLimitExceeded",
    "expired": "InvalidParameterValue.BizTokenExpired",
    "illegal": "InvalidParameter",
}
_VERDICTS = {"passed", "failed", "novideo", "slashes", "mime", "address", "quoting", "intention"}
_SIMILARITY_TOO_LOW = 2016
_NAME_AND_NUMBER_DIFFER = 2006
_NOT_FINISHED = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """The answer to one call.

    Attributes:
        name: the step that is played.
        err_code: the result code in the text, if the answer is a result.
        error: Tencent's error code, if the answer is an error.
        latency_ms: delay before the answer.
        intention: the result of the confirmation of an intention; None in a flow without one.
    """

    name: str = "passed"
    err_code: int | None = 0
    error: str | None = None
    latency_ms: int = 0
    intention: int | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the result has a verdict, passed or failed."""
        return self.err_code not in {None, _NOT_FINISHED}

    @property
    def is_charged(self) -> bool:
        """Whether Tencent charges for the answer: for verdicts, not for errors and transport faults."""
        return self.name in _VERDICTS and self.is_finished


def is_scenario(text: str) -> bool:
    """Returns whether the text starts with a step."""
    return _STEP.match(text) is not None


def scenario_of(text: str, *, call: int = 1, default: str = "passed") -> Scenario:
    """Returns what a call plays.

    Args:
        text: a BizToken or another text that may start with a scenario.
        call: the number of the call for this token, counted from 1.
        default: the scenario that follows the last step of `text`.
    """
    latency_ms = 0
    for step in (*_steps(text), *_steps(default)):
        name = step["plain"] or step["numbered"] or "error"
        number = int(step["number"]) if step["number"] else None
        calls = int(step["calls"]) if step["calls"] else None
        if calls is None and name in {"unfinished", "throttled"}:
            calls = number
        if name == "latency":
            latency_ms += (number or 0) if calls is None or call <= calls else 0
        elif calls is None or call <= calls:
            failure = _SIMILARITY_TOO_LOW if number is None else number
            err_codes = {"failed": failure, "unfinished": None, "null17": _NOT_FINISHED}
            err_codes["quoting"] = _NAME_AND_NUMBER_DIFFER
            error = step["code"] or _ERRORS.get(name)
            intention = -(number or 0) if name == "intention" else None
            err_code = err_codes.get(name, 0)
            return Scenario(name=name, err_code=err_code, error=error, latency_ms=latency_ms, intention=intention)
        else:
            call -= calls
    return Scenario(latency_ms=latency_ms)


def scenario_in_extra(extra: str) -> str:
    """Returns the scenario that DetectAuth's Extra selects by `scenario=…`, or an empty string."""
    match = re.search(r"\bscenario=([\w.-]+)", extra, re.ASCII)
    return match[1] if match else ""


def _steps(text: str) -> list[re.Match[str]]:
    """Returns the steps at the start of a text."""
    steps: list[re.Match[str]] = []
    while step := _STEP.match(text, steps[-1].end() if steps else 0):
        steps.append(step)
    return steps
