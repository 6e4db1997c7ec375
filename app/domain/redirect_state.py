"""The state of a redirect: a business vouches for one token of a browser before the token exists.

The signed state goes into DetectAuth's RedirectUrl and its nonce into DetectAuth's Extra. Tencent returns the nonce
with the result, which exposes a token that was combined with the state of another run.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.domain.detection import Detection, Outcome
from app.domain.verification import State, Verification

# A token lives for two hours from DetectAuth; a business that prepares early has the rest of the day.
PATTERN = r"[A-Za-z0-9_.-]{1,2048}"
"""The syntax of a signed state, as a regular expression."""

LIFETIME = timedelta(hours=24)

FOREIGN = "reply.foreign"
"""The error code of a call whose result lacks the nonces of all states that came with its token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedirectState:
    """The content of a signed state. The nonce makes it valid for one token."""

    client: str
    rule_id: str
    nonce: str = field(repr=False)
    expires_at: datetime


def is_foreign(verification: Verification, detection: Detection | None) -> bool:
    """Returns whether the result belongs to another run than the one whose state brought the token first.

    An unfinished result may lack the nonce; a finished result without it belongs to another run.
    """
    if verification.nonce is None or detection is None or detection.extra == verification.nonce:
        return False
    return detection.extra is not None or detection.outcome is not Outcome.UNFINISHED


def is_released(verification: Verification) -> bool:
    """Returns whether the verification failed because its states belong to other runs, so its owner may claim it."""
    is_failed = verification.state is State.FAILED and verification.last_error_code == FOREIGN
    return is_failed and verification.nonce is not None
