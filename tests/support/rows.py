"""A verification with the required values only."""

from datetime import UTC, datetime

from app.domain.verification import Verification

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
MINIMAL = Verification(client="default", biz_token="minimal", rule_id="1", due_at=None, deadline_at=NOW)
