"""A pause: an account, or a rule of it, that answers nothing before an operator acts. The tokens' time runs on."""

from dataclasses import dataclass
from datetime import datetime, timedelta

_FIRST_PROBE = timedelta(seconds=5)  # it may have been a hiccup
_PROBE_INTERVAL = timedelta(minutes=1)  # a repair is found out within a minute, and no quota is burnt


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Nothing is asked for the account, or for one `rule_id` of it, but one call at `probe_at`."""

    account: str
    rule_id: str | None
    error_code: str
    paused_at: datetime
    probe_at: datetime

    @property
    def cause(self) -> dict[str, str | None]:
        """What is paused and why, by the names that logs have for it."""
        return {"account": self.account, "rule_id": self.rule_id, "error_code": self.error_code}


def begin(account: str, rule_id: str | None, error_code: str, now: datetime) -> Pause:
    """A pause that begins now."""
    return Pause(account=account, rule_id=rule_id, error_code=error_code, paused_at=now, probe_at=now + _FIRST_PROBE)


def next_probe_at(pause: Pause, now: datetime) -> datetime:
    """When to try again if the probe that is made now fails: after as long as it lasted so far, a minute at most."""
    return now + min(max(now - pause.paused_at, _FIRST_PROBE), _PROBE_INTERVAL)
