"""The secrets of webhook endpoints, sealed by the key ring and bound to the client and the URL of each endpoint."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from app.domain.webhook_endpoint import WebhookEndpoint
from app.sealing.aead import TamperedDataError
from app.sealing.alarm import Alarm
from app.sealing.keyring import KeyRing, Ring


class SecretCipher:
    """Seals and opens secrets. Writing to the database is not enough to redirect the events of a client."""

    def __init__(self, keyring: KeyRing, alarm: Alarm | None = None) -> None:
        self.keyring = keyring
        self.alarm = alarm or Alarm()

    def seal(self, endpoint: WebhookEndpoint, secret: str) -> bytes:
        """Seals a secret of an endpoint."""
        return self.keyring.wrap(Ring.IDENTITY, secret.encode(), *endpoint.bound_values)

    def open(self, endpoint: WebhookEndpoint, now: datetime) -> Sequence[str]:
        """Returns the secrets that sign at this time, the newest first.

        Raises:
            TamperedDataError: the client, the URL or a secret was changed in the database. Raises the alarm as well.
        """
        sealed = [endpoint.sealed_secret]
        if endpoint.previous_secret is not None and endpoint.has_previous_secret(now):
            sealed.append(endpoint.previous_secret)
        try:
            return [self.keyring.unwrap(Ring.IDENTITY, each, *endpoint.bound_values).decode() for each in sealed]
        except TamperedDataError:
            self.alarm.report_endpoint(endpoint.id)
            raise

    def moved(self, before: WebhookEndpoint, after: WebhookEndpoint, now: datetime) -> WebhookEndpoint:
        """Returns the endpoint with its secrets sealed for another URL, or by a newer version of the key ring."""
        newest, *earlier = self.open(before, now)
        previous = self.seal(after, earlier[0]) if earlier else None
        return replace(
            after,
            sealed_secret=self.seal(after, newest),
            previous_secret=previous,
            previous_until=after.previous_until if previous else None,
        )
