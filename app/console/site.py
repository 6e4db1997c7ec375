"""All routes of the console, in the order in which they are matched."""

from app.console import audit, keys, listing, media, operations, overview, sign_in, verification

# `operations` answers every address that the others leave.
ROUTERS = tuple(room.router for room in (sign_in, overview, listing, verification, media, audit, keys, operations))
