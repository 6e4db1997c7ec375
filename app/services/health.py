"""Whether the service can do its work: what `/readyz` answers."""

from app.errors import SetUpError, UnavailableError
from app.storage import schema
from app.storage.database import Database


class HealthService:
    """Asks the database. Not the media store: while that is away, callbacks can still be taken in and must be."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def check(self) -> None:
        """Returns if callbacks can be taken in.

        Raises:
            UnavailableError: the database does not answer, or has another schema.
        """
        try:
            await schema.require_current(self._database)
        except SetUpError as error:
            raise UnavailableError(error.detail) from None
