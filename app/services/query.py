"""Answers what is asked of verifications: one, many, the unmasked identity, the media."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from app.domain.access import Caller
from app.domain.audit import Action, Event, EventFilter
from app.domain.detection import Detection, MediaKind, Medium, personal
from app.domain.masking import Masked
from app.domain.verification import Filter, Place, Result, State, Verification
from app.errors import ForbiddenError, GoneError, NotFoundError, TooManyRequestsError
from app.services.audit import AuditService
from app.services.cursors import audit_cursor_of, cursor_of, event_id_of, place_of
from app.services.together import Together
from app.services.vault import Vault
from app.storage.database import Database, Transaction
from app.storage.media import MediaMissingError, MediaStore
from app.storage.quota import QuotaStore
from app.storage.results import ResultStore, SealedText
from app.storage.signals import Signals
from app.storage.verifications import VerificationStore

_POLL_SECONDS = 1.0  # signals are hints: a lost one costs a waiter no more than this
_SEARCHES = 60  # that a key may make at once; after that one a second
_SEARCH_INTERVAL = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list; `next_cursor` is None on the last one."""

    results: Sequence[Result]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page of the audit: events with their BizTokens; `next_cursor` is None on the last one."""

    events: Sequence[tuple[Event, str | None]]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Person:
    """Who is looked for: exactly this ID number, and exactly this name where one is given."""

    id_card: str = field(repr=False)
    name: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A verification with its result as it is stored."""

    verification: Verification
    text: SealedText | None
    media: Sequence[Medium]


class QueryService:
    """Reads. A key sees its client's verifications; all others do not exist for it."""

    def __init__(
        self,
        *,
        database: Database,
        verifications: VerificationStore,
        results: ResultStore,
        audit: AuditService,
        quota: QuotaStore,
        media: MediaStore,
        vault: Vault,
        signals: Signals,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._verifications = verifications
        self._results = results
        self._audit = audit
        self._quota = quota
        self._media = media
        self._vault = vault
        self._signals = signals
        self._clock = clock
        self._read = Together(self._read_all)

    async def get(self, caller: Caller, biz_token: str) -> Result:
        """One verification with what was retrieved.

        Raises:
            NotFoundError: it is unknown or another client's.
        """
        return self._masked(await self._get(caller, biz_token))

    async def wait(self, caller: Caller, biz_token: str, seconds: float) -> Result:
        """As `get`, held until the state is no longer pending, the seconds are over, or the process is to stop."""
        end = time.monotonic() + seconds
        result = await self.get(caller, biz_token)
        if result.verification.state is not State.PENDING:
            return result
        with self._signals.subscribed(str(result.verification.id)) as settled:
            while not self._signals.is_over and (left := end - time.monotonic()) > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(settled.wait(), min(left, _POLL_SECONDS))
                settled.clear()
                result = await self.get(caller, biz_token)
                if result.verification.state is not State.PENDING:
                    break
        return result

    async def search(self, caller: Caller, wanted: Filter, *, limit: int, cursor: str | None) -> Page:
        """A page of verifications, the newest first; within a range of receipt, what was received last.

        Raises:
            InvalidRequestError: the cursor is none of ours.
        """
        before = place_of(cursor, by_receipt=wanted.is_by_receipt) if cursor else None
        async with self._database.read() as tx:
            wanted = replace(wanted, client=caller.scope_of_sight)
            found = await self._verifications.search(tx, wanted, limit=limit + 1, before=before)
            results = [self._masked(stored) for stored in await self._with_results(tx, found[:limit])]
        return _page(results, found, by_receipt=wanted.is_by_receipt)

    async def find(
        self, caller: Caller, wanted: Filter, person: Person, *, limit: int, cursor: str | None, request_id: str
    ) -> Page:
        """A page of one person's verifications, the newest first; the search is on record before it is answered.

        Raises:
            ForbiddenError: the person is another client's to look for.
            InvalidRequestError: the cursor is none of ours.
            TooManyRequestsError: the key has searched too often: numbers could be tried out.
        """
        client = wanted.client or caller.client
        if not caller.sees(client):
            raise ForbiddenError("The API key searches among its own client's verifications only.")
        before, wanted = place_of(cursor, by_receipt=False) if cursor else None, replace(wanted, client=client)
        index = self._vault.find_by(client, person.id_card, person.name)
        async with self._database.write() as tx:
            slot = await self._quota.reserve(tx, f"search {caller.id}", interval=_SEARCH_INTERVAL, slots=1)
            if slot - time.monotonic() > _SEARCHES * _SEARCH_INTERVAL.total_seconds():
                raise TooManyRequestsError("The API key searches too often.", retry_after=1)
            found = await self._verifications.search(tx, wanted, limit=limit + 1, before=before, index=index)
            await self._audit.record(
                tx,
                caller,
                Action.SEARCH,
                fields=["id_card", "name"] if person.name else ["id_card"],
                request_id=request_id,
                outcome=f"found {len(found[:limit])}",
            )
            results = [self._masked(stored) for stored in await self._with_results(tx, found[:limit])]
        return _page(results, found, by_receipt=False)

    async def events(self, wanted: EventFilter, biz_token: str | None, *, limit: int, cursor: str | None) -> EventPage:
        """A page of the audit, the newest first; of one verification where a token is named.

        Raises:
            InvalidRequestError: the cursor is none of ours.
        """
        before_id = event_id_of(cursor) if cursor else None
        if biz_token is not None:
            async with self._database.read() as tx:
                known = await self._verifications.find(tx, biz_token)
            wanted = replace(wanted, verification_id=known.id if known else 0)
        found = await self._audit.list(wanted, limit=limit + 1, before_id=before_id)
        return EventPage(found[:limit], audit_cursor_of(found[limit - 1][0].id) if len(found) > limit else None)

    async def reveal(self, caller: Caller, biz_token: str, *, purpose: str, request_id: str) -> Result:
        """As `get`, for the eyes of somebody who may see the identity: on record before it is answered."""
        async with self._database.write() as tx:
            verification = await self._visible(tx, caller, biz_token)
            result = await self._opened(tx, verification)
            disclosed = [name for name in personal(Detection) if result.detection and getattr(result.detection, name)]
            await self._audit.record(
                tx,
                caller,
                Action.IDENTITY,
                verification=verification,
                fields=disclosed,
                purpose=purpose,
                request_id=request_id,
            )
        return result

    async def open_medium(
        self,
        caller: Caller,
        biz_token: str,
        kind: MediaKind,
        part: Callable[[Medium], tuple[int, int] | None],
        *,
        purpose: str,
        request_id: str,
    ) -> tuple[Medium, AsyncIterator[memoryview] | None]:
        """A medium, and its bytes from the start to before the stop that `part` names; None where it names none.

        It is on record, and the first of them are there, when this returns.

        Raises:
            AlteredError: they are not what was stored; also in the middle of them.
            NotFoundError: the verification has none of this kind, or is not there.
            UnavailableError: the media store does not answer, or has lost the medium.
        """
        verification, medium = await self._find_medium(caller, biz_token, kind)
        while span := part(medium):
            pieces = self._vault.open_medium(verification, medium, self._media, *span)
            try:
                first = await anext(pieces, memoryview(b""))  # before the audit: it may be gone
                break
            except MediaMissingError:
                missed = medium
                verification, medium = await self._find_medium(caller, biz_token, kind)
                if medium == missed:  # or else another pull put a new one in its place
                    raise
        else:
            return medium, None
        await self._audit.record_by_itself(
            caller,
            Action.MEDIA,
            verification=verification,
            fields=[medium.kind],
            purpose=purpose,
            request_id=request_id,
        )

        async def all_pieces() -> AsyncIterator[memoryview]:
            yield first
            async for piece in pieces:
                await asyncio.sleep(0)  # whoever takes all at once must not hold up everybody else
                yield piece

        return medium, all_pieces()

    async def _find_medium(self, caller: Caller, biz_token: str, kind: MediaKind) -> tuple[Verification, Medium]:
        stored = await self._get(caller, biz_token)
        for medium in stored.media:
            if medium.kind is kind:
                return stored.verification, medium
        raise NotFoundError("The verification has no such medium.")

    async def _opened(self, tx: Transaction, verification: Verification) -> Result:
        """All of it, nothing masked: whoever calls this has written the audit."""
        text = (await self._results.texts(tx, [verification.id], sealed=True)).get(verification.id)
        return Result(
            verification=verification,
            detection=self._vault.open_text(verification, text) if text else None,
            callback_extra=self._vault.open_extra(verification),
        )

    async def _visible(self, tx: Transaction, caller: Caller, biz_token: str) -> Verification:
        verification = await self._verifications.find(tx, biz_token)
        if verification is None:
            raise _unknown()
        _require_visible(caller, verification)
        return verification

    async def _get(self, caller: Caller, biz_token: str) -> _Stored:
        stored = await self._read(biz_token)
        if stored is None:
            raise _unknown()
        _require_visible(caller, stored.verification)
        return stored

    async def _read_all(self, biz_tokens: Sequence[str]) -> Sequence[_Stored | None]:
        async with self._database.read() as tx:
            verifications = await self._verifications.find_all(tx, set(biz_tokens))
            stored = {one.verification.biz_token: one for one in await self._with_results(tx, verifications)}
        return [stored.get(biz_token) for biz_token in biz_tokens]

    async def _with_results(self, tx: Transaction, verifications: Collection[Verification]) -> Sequence[_Stored]:
        ids = [verification.id for verification in verifications if verification.state is State.RETRIEVED]
        texts = await self._results.texts(tx, ids) if ids else {}
        media = await self._results.media(tx, ids) if ids else {}
        return [
            _Stored(verification, texts.get(verification.id), media.get(verification.id, ()))
            for verification in verifications
        ]

    def _masked(self, stored: _Stored) -> Result:
        detection, shown = self._vault.look_at(stored.verification, stored.text) if stored.text else (None, Masked())
        return Result(verification=stored.verification, detection=detection, masked=shown, media=tuple(stored.media))


def _unknown() -> NotFoundError:
    return NotFoundError("There is no such verification.")


def _require_visible(caller: Caller, verification: Verification) -> None:
    if not caller.sees(verification.client):
        raise _unknown()
    if verification.state is State.ERASED:
        raise GoneError("The verification was erased.")


def _page(results: Sequence[Result], found: Sequence[Verification], *, by_receipt: bool) -> Page:
    """The results of all that was found; one verification more says that there is another page."""
    if len(found) == len(results):
        return Page(results, None)
    last = found[len(results) - 1]
    return Page(results, cursor_of(Place(last.id, last.received_at if by_receipt else None)))
