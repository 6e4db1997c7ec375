"""Media items: found, and opened for disclosure."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from app.domain.api_key import Actor, Scope
from app.domain.audit import Action
from app.domain.media import MediaItem, MediaKind
from app.domain.rate import RateClass
from app.domain.verification import Verification
from app.errors import NotFoundError, UnavailableError
from app.sealing.personal_data import PersonalDataCipher
from app.services.audit import AuditService
from app.services.read import ReadService
from app.storage.media import MediaMissingError, MediaStore


class MediaReplacedError(UnavailableError):
    """Another retrieval replaced the media item in the meantime: find it again."""


@dataclass(frozen=True, slots=True)
class FoundMedia:
    """A media item and its verification."""

    verification: Verification
    item: MediaItem


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class MediaService:
    """Discloses media items."""

    read: ReadService
    store: MediaStore
    cipher: PersonalDataCipher
    audit: AuditService

    async def find(self, actor: Actor, biz_token: str, kind: MediaKind, *, client: str | None = None) -> FoundMedia:
        """Finds the media item of a kind. The audit records a refusal.

        Args:
            actor: who asks.
            biz_token: the token of the verification.
            kind: the kind.
            client: whose verification is meant: see `choose_visible`, which raises the errors.

        Raises:
            ForbiddenError: the caller lacks `media:read`.
            GoneError: the verification was erased.
            NotFoundError: the verification has none, does not exist, or belongs to another client.
            TamperedDataError: the rows of the result were changed.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        self.read.limits.admit(actor.caller, RateClass.MEDIA)
        await self.audit.require_recorded(actor, Scope.MEDIA_READ, Action.MEDIA)
        return await self._find(actor, biz_token, kind, client)

    async def _find(self, actor: Actor, biz_token: str, kind: MediaKind, client: str | None) -> FoundMedia:
        async with self.audit.recorded_refusals(actor, Action.MEDIA, kind):
            stored = await self.read.load(actor, biz_token, client=client)
            self.cipher.verify(stored.verification, stored.text, stored.media)
            for item in stored.media:
                if item.kind is kind:
                    return FoundMedia(stored.verification, item)
            raise NotFoundError("The verification has no such media item.")

    async def open(self, actor: Actor, found: FoundMedia, start: int, stop: int) -> AsyncIterator[memoryview]:
        """Opens the bytes from `start` up to but not including `stop`, in pieces.

        When it returns, the first piece has been read and the audit row committed. Raises the errors of
        `open_recorded`.
        """
        pieces = await self.open_recorded(actor, found, start, stop)
        await self.audit.record_now(
            self.audit.describe(actor, Action.MEDIA, verification=found.verification, fields=[found.item.kind])
        )
        return pieces

    async def open_recorded(self, actor: Actor, found: FoundMedia, start: int, stop: int) -> AsyncIterator[memoryview]:
        """Like `open`, for a disclosure whose audit row is committed already. The first piece has been read.

        Raises:
            MediaReplacedError: the item was replaced since it was found.
            TamperedDataError: the stored bytes were changed. Also raised between pieces.
            UnavailableError: the media store does not answer, or has lost the item.
        """
        verification, item = found.verification, found.item
        pieces = self.cipher.open_media(verification, item, start, stop, partial(self.store.open, item.object_key))
        try:
            # Before the audit: the object may be gone.
            first = await anext(pieces, memoryview(b""))
        except MediaMissingError:
            owner, biz_token = verification.client, verification.biz_token
            if (await self._find(actor, biz_token, item.kind, owner)).item == item:
                raise
            raise MediaReplacedError("The media item was replaced; try again.") from None
        return _chained(first, pieces)


async def _chained(first: memoryview, rest: AsyncIterator[memoryview]) -> AsyncIterator[memoryview]:
    yield first
    async for piece in rest:
        # A client that takes everything at once must not block the others.
        await asyncio.sleep(0)
        yield piece
