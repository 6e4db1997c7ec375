"""A receiver of webhooks that checks each message with the reference implementation, and keeps what it said."""

import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from standardwebhooks import Webhook

from app.config import Settings
from app.factory import open_services
from app.services.webhook_endpoints import EndpointFacts
from tests.support.receiver import NO_CONTENT, Message, answer, receiving
from tests.support.service import actor


@dataclass
class Inbox:
    """The messages of one endpoint: the revision and the id of each, by token, in the order in which they arrived."""

    secret: str
    arrived: defaultdict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    forged: int = 0

    def take(self, message: Message) -> bytes:
        """Records a message and accepts it, or rejects it if its signature is wrong."""
        event_id, body = message.headers["webhook-id"], message.body.decode()
        # Not `verify`, which rejects what a worker with a wrong clock sends.
        sent_at = datetime.fromtimestamp(int(message.headers["webhook-timestamp"]), UTC)
        if Webhook(self.secret).sign(event_id, sent_at, body) not in message.headers["webhook-signature"].split():
            self.forged += 1
            return answer(401)
        data = json.loads(body)["data"]
        self.arrived[data["biz_token"]].append((data["revision"], event_id))
        return NO_CONTENT


@asynccontextmanager
async def open_inbox(settings: Settings) -> AsyncIterator[Inbox]:
    """Yields the inbox of a new endpoint of the default client, which receives all events during the block."""
    async with receiving() as receiver:
        async with open_services(settings) as services:
            _, secret = await services.webhook_endpoints.create(actor(), EndpointFacts(url=receiver.url()))
        inbox = Inbox(secret)
        receiver.answer = inbox.take
        yield inbox
