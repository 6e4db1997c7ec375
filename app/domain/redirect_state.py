"""The state of a redirect: a business vouches for one token of a browser before the token exists.

The signed state goes into DetectAuth's RedirectUrl and its nonce into DetectAuth's Extra. Tencent returns the nonce
with the result, which exposes a token that was combined with the state of another run.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.domain.detection import Detection, Outcome
from app.domain.verification import Verification

# A token lives for two hours from DetectAuth; a business that prepares early has the rest of the day.
PATTERN = r"[A-Za-z0-9_.-]{1,2048}"
"""The syntax of a signed state, as a regular expression."""

LIFETIME = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedirectState:
    """The content of a signed state. The nonce makes it valid for one token."""

    client: str
    rule_id: str
    nonce: str = field(repr=False)
    expires_at: datetime


def is_foreign(verification: Verification, detection: Detection | None) -> bool:
    """Returns whether the result belongs to another run than the one whose state brought the token.

    An unfinished result may lack the nonce; a finished result without it belongs to another run.
    """
    if verification.nonce is None or detection is None or detection.extra == verification.nonce:
        return False
    return detection.extra is not None or detection.outcome is not Outcome.UNFINISHED
