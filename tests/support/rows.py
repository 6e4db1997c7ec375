"""A verification with the required values only, and rows by their tokens."""

from datetime import UTC, datetime

from app.domain.rule import DEFAULT_CLIENT
from app.domain.verification import Verification
from app.storage.database import Transaction

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
MINIMAL = Verification(client="default", biz_token="minimal", rule_id="1", due_at=None, deadline_at=NOW)


async def find_row(tx: Transaction, biz_token: str) -> Verification | None:
    """Returns the row of a token that at most one client has."""
    return next(iter(await tx.verifications.find_all([biz_token])), None)


async def lock_row(tx: Transaction, biz_token: str) -> Verification | None:
    """Locks and returns the row of a token of the default client."""
    return (await tx.verifications.lock_all([(DEFAULT_CLIENT, biz_token)])).get((DEFAULT_CLIENT, biz_token))
