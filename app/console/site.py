"""All routes of the console, in the order in which they are matched."""

from app.console import (
    audit,
    deliveries,
    events,
    keys,
    listing,
    media,
    operations,
    overview,
    sign_in,
    verification,
    webhooks,
)

# `operations` answers every address that the others leave.
_ROOMS = (sign_in, overview, listing, verification, media, webhooks, deliveries, events, audit, keys, operations)
ROUTERS = tuple(room.router for room in _ROOMS)
