"""The alarm about stored data that fail their authentication."""

import structlog

from app.observability import TAMPERED, Throttle, digest_of

ALARM_SECONDS = 600.0
"""Each row raises the alarm once in this time, per process: readers ask for it again and again."""

_MAX_ROWS = 1000

log = structlog.get_logger()


class Alarm:
    """Names altered rows in the log, and counts them in the metrics."""

    def __init__(self) -> None:
        self._throttle = Throttle(ALARM_SECONDS, _MAX_ROWS)

    def report_verification(self, verification_id: int, biz_token: str) -> None:
        """Reports that a value of a verification, or of a row that belongs to it, is not the one that was sealed."""
        if self._throttle.admit(verification_id):
            TAMPERED.inc()
            log.error("altered", verification=verification_id, token=digest_of(biz_token))

    def report_key(self, key_id: str) -> None:
        """Reports that a right or the digest of an API key is not the one that was sealed."""
        if self._throttle.admit(key_id):
            TAMPERED.inc()
            log.error("key_altered", key_id=key_id)

    def report_endpoint(self, endpoint_id: str) -> None:
        """Reports that the client, the URL or a secret of a webhook endpoint is not the one that was sealed."""
        if self._throttle.admit(endpoint_id):
            TAMPERED.inc()
            log.error("endpoint_altered", endpoint=endpoint_id)
