"""The nonces of signed states that browsers have brought, each with the token that it came with first."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.verification import TokenOwner
from app.storage.tables import redirect_nonce as table

# nonce, client, BizToken
NonceUse = tuple[str, str, str]

_NAMES = [table.c.nonce.name, table.c.client.name, table.c.biz_token.name]


@dataclass(frozen=True, slots=True)
class RedirectStore:
    """The table of used nonces."""

    connection: AsyncConnection

    async def use(self, uses: Collection[NonceUse]) -> Collection[str]:
        """Marks different nonces as used by their tokens; returns those that were not used before.

        Two transactions cannot use the same nonce: the second one waits for the first. They are inserted in order, so
        two transactions with the same ones cannot deadlock.
        """
        insert = postgresql.insert if self.connection.dialect.name == "postgresql" else sqlite.insert
        statement = insert(table).on_conflict_do_nothing().returning(table.c.nonce)
        rows = [dict(zip(_NAMES, use, strict=True)) for use in sorted(uses)]
        return (await self.connection.scalars(statement, rows)).all()

    async def release(self, nonces: Collection[str]) -> None:
        """Deletes nonces that this transaction has marked."""
        await self.connection.execute(delete(table).where(table.c.nonce.in_(nonces)))

    async def forget(self, owner: TokenOwner) -> None:
        """Deletes the nonces of a verification that was erased. It accepts no state any more."""
        client, biz_token = owner
        await self.connection.execute(delete(table).where(table.c.biz_token == biz_token, table.c.client == client))

    async def is_used_by(self, use: NonceUse) -> bool:
        """Returns whether the nonce came with this token of this client."""
        nonce, *owner = use
        found = await self.connection.execute(select(table.c.client, table.c.biz_token).where(table.c.nonce == nonce))
        return [list(row) for row in found] == [owner]
