"""A pause stops all calls for an account or one of its rules until an operator fixes the cause.

The deadlines of the tokens keep running.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

# The first probe comes early because the error may have been a short disturbance.
_FIRST_PROBE = timedelta(seconds=5)
# A repair is noticed within this time, and the probes use little of the quota.
_MAX_PROBE_INTERVAL = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A pause of an account, or of one `rule_id` of it. One call is made at `probe_at` to check whether it can end."""

    account: str
    rule_id: str | None
    error_code: str
    paused_at: datetime
    probe_at: datetime

    @property
    def cause(self) -> dict[str, str | None]:
        """The paused account or rule and the error, as log fields."""
        return {"account": self.account, "rule_id": self.rule_id, "error_code": self.error_code}


def begin(account: str, rule_id: str | None, error_code: str, now: datetime) -> Pause:
    """Returns a pause that begins now."""
    return Pause(account=account, rule_id=rule_id, error_code=error_code, paused_at=now, probe_at=now + _FIRST_PROBE)


def has_due_probe(pause: Pause, now: datetime) -> bool:
    """Returns whether to probe now. A probe further ahead than any interval was scheduled by a wrong clock."""
    return not now < pause.probe_at <= now + _MAX_PROBE_INTERVAL


def next_probe_at(pause: Pause, now: datetime) -> datetime:
    """Returns when to probe again if the current probe fails: after the pause's age, at least 5 s and at most 1 min."""
    return now + min(max(now - pause.paused_at, _FIRST_PROBE), _MAX_PROBE_INTERVAL)
