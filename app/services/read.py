"""Reads verifications: one, many, one person's, and the unmasked identity."""

import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from app import tasks
from app.domain.api_key import Actor, Caller, Scope
from app.domain.audit import Action
from app.domain.detection import Detection, SealedText, personal
from app.domain.listing import Order, Position, VerificationFilter, decode_cursor, encode_cursor
from app.domain.media import MediaItem
from app.domain.rate import RateClass
from app.domain.verification import Result, State, Verification
from app.errors import GoneError, ServiceError
from app.sealing.aead import TamperedDataError
from app.sealing.personal_data import PersonalDataCipher
from app.services.api_keys import ApiKeyService
from app.services.audit import AuditService
from app.services.batching import Batcher
from app.services.limits import LimitService
from app.services.visibility import choose_visible, lock_visible, require_client, require_scope
from app.storage.database import Database, Transaction
from app.storage.wakeups import Wakeups

# A lost wake-up costs a waiting caller no more than this.
_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ResultPage:
    """A page of a list; `next_cursor` is None on the last one."""

    results: Sequence[Result]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class PersonQuery:
    """The exact ID number of a person, and the exact name if given."""

    id_card: str = field(repr=False)
    name: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A verification and its result as stored, still encrypted.

    `is_malformed`: its rows contain a value that no version of the service writes.
    """

    verification: Verification
    text: SealedText | None = None
    media: Sequence[MediaItem] = ()
    is_malformed: bool = False


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A verification that a caller wants to read."""

    caller: Caller
    biz_token: str
    client: str | None


@dataclass(kw_only=True, repr=False, eq=False)
class ReadService:
    """Reads for a caller. Verifications of other clients count as not found.

    Args named `client` say whose verification of a token is meant: see `choose_visible`, which raises the errors.
    """

    database: Database
    audit: AuditService
    cipher: PersonalDataCipher
    wakeups: Wakeups
    api_keys: ApiKeyService
    limits: LimitService
    _load_one: Batcher[_Wanted, StoredResult] = field(init=False)

    def __post_init__(self) -> None:
        self._load_one = Batcher(self._load_batch)

    async def get(self, actor: Actor, biz_token: str, *, client: str | None = None) -> Result:
        """Returns a verification with the masked identity.

        Raises:
            ForbiddenError: the caller lacks `results:read`.
            GoneError: it was erased.
            NotFoundError: it does not exist or belongs to another client.
            TamperedDataError: stored values were changed.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        require_scope(actor.caller, Scope.RESULTS_READ)
        self.limits.admit(actor.caller, RateClass.READS)
        return await self._get(actor, biz_token, client)

    async def _get(self, actor: Actor, biz_token: str, client: str | None) -> Result:
        return self._masked(await self.load(actor, biz_token, client=client))

    async def wait(self, actor: Actor, biz_token: str, seconds: float, *, client: str | None = None) -> Result:
        """Like `get`, but waits while the state is pending, at most `seconds` or until the process stops.

        The key is checked again before the held result is returned. Cancel the call when the caller has disconnected.

        Raises:
            TooManyWaitsError: the caller, or the process, holds too many waits.
            UnauthenticatedError: the key has ended in the meantime.
        """
        end = time.monotonic() + seconds
        result = await self.get(actor, biz_token, client=client)
        if result.verification.state is not State.PENDING or not seconds:
            return result
        with self.limits.waiting(actor.caller), self.wakeups.subscribed(str(result.verification.id)) as changed:
            while not self.wakeups.is_over and (left := end - time.monotonic()) > 0:
                await tasks.wait_for(changed, min(left, _POLL_SECONDS))
                changed.clear()
                await self.api_keys.confirm(actor)
                result = await self._get(actor, biz_token, result.verification.client)
                if result.verification.state is not State.PENDING:
                    break
        return result

    async def list(self, actor: Actor, wanted: VerificationFilter, *, limit: int, cursor: str | None) -> ResultPage:
        """Returns a page of verifications in the order of `wanted`. An altered one is marked and has no result.

        Raises:
            ForbiddenError: the caller lacks `results:read`, or cannot see the wanted client's verifications.
            InvalidRequestError: the cursor is invalid or belongs to another list.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        require_scope(actor.caller, Scope.RESULTS_READ)
        self.limits.admit(actor.caller, RateClass.LISTS)
        require_client(actor.caller, wanted.client)
        wanted = replace(wanted, client=wanted.client or actor.caller.visible_client)
        after = decode_cursor(cursor, wanted.order) if cursor else None
        return await self._read_page(wanted, limit, after)

    async def pages(
        self, wanted: VerificationFilter, *, size: int, is_revealed: bool
    ) -> AsyncIterator[Sequence[Result]]:
        """Yields all pages of a list, at least one. The caller authorises, limits and audits."""
        page = await self._read_page(wanted, size, None, is_revealed=is_revealed)
        yield page.results
        while page.next_cursor:
            after = decode_cursor(page.next_cursor, wanted.order)
            page = await self._read_page(wanted, size, after, is_revealed=is_revealed)
            yield page.results

    async def _read_page(
        self, wanted: VerificationFilter, limit: int, after: Position | None, *, is_revealed: bool = False
    ) -> ResultPage:
        show = self._revealed if is_revealed else self._masked
        async with self.database.read() as tx:
            found = await tx.verifications.search(wanted, limit=limit + 1, after=after)
            stored = await with_results(tx, found[:limit], sealed=is_revealed)
        return _page([self._shown_or_marked(one, show) for one in stored], found, wanted.order)

    async def search_person(
        self, actor: Actor, wanted: VerificationFilter, person: PersonQuery, *, limit: int, cursor: str | None
    ) -> ResultPage:
        """Like `list`, one person's verifications, in the order of their ids. The audit row is committed before.

        Raises:
            ForbiddenError: the caller lacks `results:read`, or cannot see the client's verifications.
            InvalidRequestError: the cursor is invalid or belongs to another list.
            TooManyRequestsError: the caller has exceeded its rate. Searches could guess numbers.
        """
        require_scope(actor.caller, Scope.RESULTS_READ)
        self.limits.admit(actor.caller, RateClass.SEARCHES)
        require_client(actor.caller, wanted.client)
        client = wanted.client or actor.caller.client
        wanted, order = replace(wanted, client=client), Order(is_ascending=wanted.is_ascending)
        after = decode_cursor(cursor, order) if cursor else None
        index = self.cipher.find_by(client, person.id_card, person.name)
        async with self.database.write() as tx:
            found = await tx.verifications.search(wanted, limit=limit + 1, after=after, person=index)
            fields = ["id_card", "name"] if person.name else ["id_card"]
            outcome = f"found {len(found[:limit])}"
            await self.audit.record(tx, self.audit.describe(actor, Action.SEARCH, fields=fields, outcome=outcome))
        # In one snapshot, because the results may have changed since.
        async with self.database.read() as tx:
            current = {row.id: row for row in await tx.verifications.list_by_id([row.id for row in found[:limit]])}
            rows = [current[row.id] for row in found[:limit]]
            results = [self._shown_or_marked(stored, self._masked) for stored in await with_results(tx, rows)]
        return _page(results, found, order)

    async def reveal(self, actor: Actor, biz_token: str, *, client: str | None = None) -> Result:
        """Like `get`, with the unmasked identity. The audit row is committed before the result is returned.

        A refusal is recorded as well, unless the caller has exceeded its rate.

        Raises:
            ForbiddenError: the caller lacks `results:reveal`.
            GoneError: it was erased.
            NotFoundError: it does not exist or belongs to another client.
        """
        self.limits.admit(actor.caller, RateClass.REVEALS)
        await self.audit.require_recorded(actor, Scope.RESULTS_REVEAL, Action.IDENTITY)
        async with self.audit.recorded_refusals(actor, Action.IDENTITY), self.database.write() as tx:
            # Locked, because the text is read after it, and both must be of one result.
            verification = _readable(await lock_visible(tx, actor.caller, biz_token, client))
            text = (await tx.results.texts([verification.id], sealed=True)).get(verification.id)
            detection = self.cipher.open_verified_text(verification, text)
            disclosed = [name for name in personal(Detection) if detection and getattr(detection, name)]
            await self.audit.record(
                tx, self.audit.describe(actor, Action.IDENTITY, verification=verification, fields=disclosed)
            )
            callback_extra = self.cipher.open_extra(verification)
        return Result(verification=verification, detection=detection, callback_extra=callback_extra)

    async def load(self, actor: Actor, biz_token: str, *, client: str | None = None) -> StoredResult:
        """Returns a verification and its result as stored. Raises the errors of `get`."""
        stored = await self._load_one(_Wanted(actor.caller, biz_token, client))
        self._check(stored)
        return stored

    async def _load_batch(self, batch: Sequence[_Wanted]) -> Sequence[StoredResult | ServiceError]:
        rows: dict[str, list[Verification]] = {}
        async with self.database.read() as tx:
            for row in await tx.verifications.find_all({wanted.biz_token for wanted in batch}):
                rows.setdefault(row.biz_token, []).append(row)
            chosen = [_chosen(wanted, rows.get(wanted.biz_token, [])) for wanted in batch]
            found = {one.id: one for one in chosen if isinstance(one, Verification)}
            stored = {one.verification.id: one for one in await with_results(tx, list(found.values()))}
        return [stored[one.id] if isinstance(one, Verification) else one for one in chosen]

    def _check(self, stored: StoredResult) -> None:
        """Raises TamperedDataError, after the alarm, if the result does not belong together."""
        if stored.is_malformed:
            raise self.cipher.tampered(stored.verification)

    def _shown_or_marked(self, stored: StoredResult, show: Callable[[StoredResult], Result]) -> Result:
        try:
            self._check(stored)
            return show(stored)
        except TamperedDataError:
            # The outcome may be the value that was changed.
            return Result(verification=replace(stored.verification, outcome=None), is_altered=True)

    def _masked(self, stored: StoredResult) -> Result:
        detection, shown = self.cipher.open_masked(stored.verification, stored.text, stored.media)
        return Result(verification=stored.verification, detection=detection, masked=shown, media=tuple(stored.media))

    def _revealed(self, stored: StoredResult) -> Result:
        detection = self.cipher.open_verified_text(stored.verification, stored.text)
        return Result(verification=stored.verification, detection=detection, media=tuple(stored.media))


def _chosen(wanted: _Wanted, rows: Sequence[Verification]) -> Verification | ServiceError:
    try:
        return _readable(choose_visible(wanted.caller, rows, wanted.client))
    except ServiceError as error:
        return error


def _readable(verification: Verification) -> Verification:
    if verification.state is State.ERASED:
        raise GoneError("The verification was erased.")
    return verification


async def with_results(
    tx: Transaction, verifications: Collection[Verification], *, sealed: bool = False
) -> Sequence[StoredResult]:
    """Adds the stored results."""
    ids = [verification.id for verification in verifications if verification.state is State.RETRIEVED]
    texts = await tx.results.texts(ids, sealed=sealed) if ids else {}
    media = await tx.results.media(ids) if ids else {}
    return [_stored(one, texts.get(one.id), media.get(one.id, ())) for one in verifications]


def _stored(verification: Verification, text: SealedText | None, media: Sequence[MediaItem] | None) -> StoredResult:
    is_malformed = verification.is_malformed or media is None
    return StoredResult(verification, text, media or (), is_malformed=is_malformed)


def _page(results: Sequence[Result], found: Sequence[Verification], order: Order) -> ResultPage:
    """Builds a page. One more verification than results means that another page follows."""
    if len(found) == len(results):
        return ResultPage(results, None)
    last = found[len(results) - 1]
    position = Position(last.id, getattr(last, order.field) if order.field else None)
    return ResultPage(results, encode_cursor(position, order))
