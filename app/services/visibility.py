"""Authorisation: the scopes of a caller, and the verification or webhook endpoint that it means.

A BizToken is unique for each client only.
"""

from collections.abc import Sequence

from app.domain.api_key import Caller, Scope
from app.domain.verification import Verification
from app.domain.webhook_endpoint import WebhookEndpoint
from app.errors import ConflictError, ForbiddenError, NotFoundError
from app.storage.database import Transaction


def require_scope(caller: Caller, scope: Scope) -> None:
    """Checks that the caller has the scope. Services check it, so every way into the service has the same rights.

    Raises:
        ForbiddenError: it has not.
    """
    if not caller.allows(scope):
        raise ForbiddenError(f"The API key lacks the scope {scope}.")


def require_client(caller: Caller, client: str | None) -> None:
    """Checks that the caller can see the verifications of the client that it names, if it names one.

    Raises:
        ForbiddenError: it cannot.
    """
    if client is not None and not caller.can_see(client):
        raise ForbiddenError("This API key can only see the verifications of its own client.")


def choose_visible(caller: Caller, rows: Sequence[Verification], client: str | None) -> Verification:
    """Returns the row that the caller means.

    A caller sees the row of its own client only. An admin sees all: the row of `client` if it names one, otherwise that
    of its own client, otherwise the only one.

    Args:
        caller: who asks.
        rows: the rows of one token, of all clients.
        client: the client that the caller names.

    Raises:
        ConflictError: several clients have the token, and an admin names none of them.
        ForbiddenError: the caller names a client whose verifications it cannot see.
        NotFoundError: there is no such row.
    """
    require_client(caller, client)
    own = [row for row in rows if row.client == (client or caller.client)]
    visible = own or [row for row in rows if client is None and caller.can_see(row.client)]
    if len(visible) > 1:
        raise ConflictError("Several clients have this token: name one of them with `client`.", code="several_clients")
    if not visible:
        raise NotFoundError("There is no such verification.")
    return visible[0]


async def find_visible(tx: Transaction, caller: Caller, biz_token: str, client: str | None) -> Verification:
    """Returns the verification that the caller means. Raises the errors of `choose_visible`."""
    return choose_visible(caller, await tx.verifications.find_all([biz_token]), client)


async def lock_visible(tx: Transaction, caller: Caller, biz_token: str, client: str | None) -> Verification:
    """Like `find_visible`. No other transaction changes the verification until this one ends."""
    found = await find_visible(tx, caller, biz_token, client)
    # Rows are never removed, and their owners never change.
    (locked,) = await tx.verifications.lock_by_id([found.id])
    return locked


def require_endpoint(caller: Caller, endpoint: WebhookEndpoint | None) -> WebhookEndpoint:
    """Returns the webhook endpoint if the caller may manage it.

    Raises:
        ForbiddenError: the caller lacks the scope.
        NotFoundError: it does not exist, or it belongs to another client.
    """
    require_scope(caller, Scope.WEBHOOKS_MANAGE)
    if endpoint is None or not caller.can_see(endpoint.client):
        raise NotFoundError("There is no such webhook endpoint.")
    return endpoint


async def find_endpoint(tx: Transaction, caller: Caller, endpoint_id: str) -> WebhookEndpoint:
    """Returns the webhook endpoint that the caller means. Raises the errors of `require_endpoint`."""
    return require_endpoint(caller, await tx.webhook_endpoints.find(endpoint_id))


async def lock_endpoint(tx: Transaction, caller: Caller, endpoint_id: str) -> WebhookEndpoint:
    """Like `find_endpoint`. No other transaction changes the endpoint until this one ends."""
    return require_endpoint(caller, next(iter(await tx.webhook_endpoints.lock([endpoint_id])), None))
