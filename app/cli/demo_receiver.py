"""The receiver of the demo: a webhook endpoint on this machine that verifies what arrives."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
from starlette.types import Receive, Scope, Send

from app.services.clock import now
from app.webhooks.signatures import is_signed

_MAX_EVENTS = 1000


@dataclass
class DemoReceiver:
    """An ASGI application that accepts messages signed with `secret`, and keeps the events of the first 1,000."""

    url: str
    secret: str = ""
    clock: Callable[[], datetime] = now
    events: list[Mapping[str, Any]] = field(default_factory=list)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def register(self, api: httpx.AsyncClient) -> str:
        """Creates a webhook endpoint for this receiver; returns its id."""
        answer = await api.post("/v1/webhook-endpoints", json={"url": self.url, "description": "receiver of the demo"})
        created = answer.raise_for_status().json()
        self.secret = created["secret"]
        return str(created["id"])

    async def find(self, kind: str, biz_token: str, seconds: float) -> Mapping[str, Any] | None:
        """Waits for the event of this type about a token; returns None if it does not arrive in time."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for event in self.events:
                        if (event["type"], event["data"].get("biz_token")) == (kind, biz_token):
                            return event
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request: 204 if its signature is valid, otherwise 401."""
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        is_valid = is_signed(self.secret, headers, body, self.clock())
        if is_valid and len(self.events) < _MAX_EVENTS:
            self.events.append(json.loads(body))
            self._arrived.set()
        await send({"type": "http.response.start", "status": 204 if is_valid else 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})
