"""The signed state of a redirect: a business vouches for one token of a browser, before there is a token.

It goes into DetectAuth's RedirectUrl and its nonce into DetectAuth's Extra; Tencent gives the nonce back with the
result, so that a token put beside the state of another run is found out.
"""

import base64
import hmac
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.domain.detection import Detection, Outcome
from app.domain.verification import Verification

LIFETIME = timedelta(hours=24)  # a token lives for two hours from DetectAuth; who prepares early has the day
_FORM = re.compile(r"([A-Za-z0-9_-]{1,2048})\.([A-Za-z0-9_-]{1,128})")
_PURPOSE = "redirect_state"  # what else the key signs is no state


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What a state says. The nonce makes it good for one token."""

    client: str
    rule_id: str
    nonce: str
    expires_at: datetime


def seal(ticket: Ticket, mac: Callable[[str, str], bytes]) -> str:
    """The state, fit for a URL: `<base64url of JSON>.<base64url of its MAC>`."""
    values = [ticket.client, ticket.rule_id, ticket.nonce, int(ticket.expires_at.timestamp())]
    payload = _encoded(json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode())
    return f"{payload}.{_encoded(mac(_PURPOSE, payload))}"


def unseal(state: str, macs: Callable[[str, str], Sequence[bytes]], now: datetime) -> Ticket | None:
    """What a state says; None if it is not ours, or is over. `macs` gives the MAC by each key that is still good."""
    match = _FORM.fullmatch(state)
    if match is None:
        return None
    payload, told = match.groups()
    good = [hmac.compare_digest(_encoded(mac), told) for mac in macs(_PURPOSE, payload)]
    if not any(good):
        return None
    client, rule_id, nonce, expires_at = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    ticket = Ticket(client=client, rule_id=rule_id, nonce=nonce, expires_at=datetime.fromtimestamp(expires_at, UTC))
    return ticket if now < ticket.expires_at else None


def is_foreign(verification: Verification, detection: Detection | None) -> bool:
    """Whether the text is of another run than the one whose state brought the token.

    Absent is not foreign while the person is not finished; a finished result must have the nonce.
    """
    if verification.nonce is None or detection is None or detection.extra == verification.nonce:
        return False
    return detection.extra is not None or detection.outcome is not Outcome.UNFINISHED


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
