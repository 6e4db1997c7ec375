"""Reads verifications: one, many, one person's, and the unmasked identity."""

import asyncio
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta

from app.domain.api_key import Actor, Caller
from app.domain.audit import Action
from app.domain.detection import Detection, SealedText, personal
from app.domain.listing import Order, Position, VerificationFilter, decode_cursor, encode_cursor
from app.domain.media import MediaItem
from app.domain.personal import Masked
from app.domain.verification import Result, State, Verification
from app.errors import ForbiddenError, GoneError, TooManyRequestsError
from app.sealing.aead import TamperedDataError
from app.sealing.personal_data import PersonalDataCipher
from app.services.audit import AuditService
from app.services.batching import Batcher
from app.services.intake import not_found, require_visible
from app.storage.database import Database, Transaction
from app.storage.wakeups import Wakeups

# A lost wake-up costs a waiting caller no more than this.
_POLL_SECONDS = 1.0
# A key may make this many searches at once, then one per interval.
_SEARCH_BURST = 60
_SEARCH_INTERVAL = timedelta(seconds=1)


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

    `is_malformed`: the rows of the result contain a value of an impossible type.
    """

    verification: Verification
    text: SealedText | None = None
    media: Sequence[MediaItem] = ()
    is_malformed: bool = False


@dataclass(kw_only=True, repr=False, eq=False)
class ReadService:
    """Reads for a caller. Verifications of other clients count as not found."""

    database: Database
    audit: AuditService
    cipher: PersonalDataCipher
    wakeups: Wakeups
    _load_one: Batcher[str, StoredResult | None] = field(init=False)

    def __post_init__(self) -> None:
        self._load_one = Batcher(self._load_batch)

    async def get(self, actor: Actor, biz_token: str) -> Result:
        """Returns a verification with the masked identity.

        Raises:
            GoneError: it was erased.
            NotFoundError: it does not exist or belongs to another client.
            TamperedDataError: stored values were changed.
        """
        return self._masked(await self.load(actor, biz_token))

    async def wait(self, actor: Actor, biz_token: str, seconds: float) -> Result:
        """Like `get`, but waits while the state is pending, at most `seconds` or until the process stops."""
        end = time.monotonic() + seconds
        result = await self.get(actor, biz_token)
        if result.verification.state is not State.PENDING:
            return result
        with self.wakeups.subscribed(str(result.verification.id)) as changed:
            while not self.wakeups.is_over and (left := end - time.monotonic()) > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), min(left, _POLL_SECONDS))
                changed.clear()
                result = await self.get(actor, biz_token)
                if result.verification.state is not State.PENDING:
                    break
        return result

    async def list(self, actor: Actor, wanted: VerificationFilter, *, limit: int, cursor: str | None) -> ResultPage:
        """Returns a page of verifications in the order of `wanted`. An altered one is marked and has no result.

        Raises:
            ForbiddenError: the caller cannot see the wanted client's verifications.
            InvalidRequestError: the cursor is invalid or belongs to another list.
        """
        if wanted.client is None:
            wanted = replace(wanted, client=actor.caller.visible_client)
        elif not actor.caller.can_see(wanted.client):
            raise _foreign_client()
        after = decode_cursor(cursor, wanted.order) if cursor else None
        async with self.database.read() as tx:
            found = await tx.verifications.search(wanted, limit=limit + 1, after=after)
            results = [self._masked_or_marked(stored) for stored in await _with_results(tx, found[:limit])]
        return _page(results, found, wanted.order)

    async def search_person(
        self, actor: Actor, wanted: VerificationFilter, person: PersonQuery, *, limit: int, cursor: str | None
    ) -> ResultPage:
        """Like `list`, one person's verifications, in the order of their ids. The audit row is committed before.

        Raises:
            ForbiddenError: the caller cannot see the client's verifications.
            InvalidRequestError: the cursor is invalid or belongs to another list.
            TooManyRequestsError: the key has made too many searches, which could guess numbers.
        """
        client = wanted.client or actor.caller.client
        if not actor.caller.can_see(client):
            raise _foreign_client()
        wanted, order = replace(wanted, client=client), Order(is_ascending=wanted.is_ascending)
        after = decode_cursor(cursor, order) if cursor else None
        index = self.cipher.find_by(client, person.id_card, person.name)
        async with self.database.write() as tx:
            slot = await tx.quota.reserve(f"search {actor.caller.id}", interval=_SEARCH_INTERVAL, slots=1)
            if slot - time.monotonic() > _SEARCH_BURST * _SEARCH_INTERVAL.total_seconds():
                raise TooManyRequestsError("Search rate limit exceeded; retry after 1 second.", retry_after=1)
            found = await tx.verifications.search(wanted, limit=limit + 1, after=after, person=index)
            fields = ["id_card", "name"] if person.name else ["id_card"]
            outcome = f"found {len(found[:limit])}"
            await self.audit.record(tx, self.audit.describe(actor, Action.SEARCH, fields=fields, outcome=outcome))
            results = [self._masked_or_marked(stored) for stored in await _with_results(tx, found[:limit])]
        return _page(results, found, order)

    async def reveal(self, actor: Actor, biz_token: str) -> Result:
        """Like `get`, with the unmasked identity. The audit row is committed before the result is returned.

        A refusal is recorded as well.
        """
        async with self.audit.recorded_refusals(actor, Action.IDENTITY), self.database.write() as tx:
            verification = _readable(actor.caller, await tx.verifications.find(biz_token))
            text = (await tx.results.texts([verification.id], sealed=True)).get(verification.id)
            detection = self.cipher.open_text(verification, text) if text else None
            disclosed = [name for name in personal(Detection) if detection and getattr(detection, name)]
            await self.audit.record(
                tx, self.audit.describe(actor, Action.IDENTITY, verification=verification, fields=disclosed)
            )
            callback_extra = self.cipher.open_extra(verification)
        return Result(verification=verification, detection=detection, callback_extra=callback_extra)

    async def load(self, actor: Actor, biz_token: str) -> StoredResult:
        """Returns a verification and its result as stored. Raises the errors of `get`."""
        stored = await self._load_one(biz_token)
        if stored is None:
            raise not_found()
        _readable(actor.caller, stored.verification)
        self._check(stored)
        return stored

    async def _load_batch(self, biz_tokens: Sequence[str]) -> Sequence[StoredResult | None]:
        async with self.database.read() as tx:
            verifications = await tx.verifications.find_all(set(biz_tokens))
            stored = {one.verification.biz_token: one for one in await _with_results(tx, verifications)}
        return [stored.get(biz_token) for biz_token in biz_tokens]

    def _check(self, stored: StoredResult) -> None:
        """Raises TamperedDataError, after the alarm, if the result does not belong together."""
        if stored.is_malformed:
            raise self.cipher.tampered(stored.verification)

    def _masked_or_marked(self, stored: StoredResult) -> Result:
        try:
            self._check(stored)
            return self._masked(stored)
        except TamperedDataError:
            # The outcome may be the value that was changed.
            return Result(verification=replace(stored.verification, outcome=None), is_altered=True)

    def _masked(self, stored: StoredResult) -> Result:
        detection, shown = (
            self.cipher.open_masked(stored.verification, stored.text) if stored.text else (None, Masked())
        )
        return Result(verification=stored.verification, detection=detection, masked=shown, media=tuple(stored.media))


def _readable(caller: Caller, verification: Verification | None) -> Verification:
    verification = require_visible(caller, verification)
    if verification.state is State.ERASED:
        raise GoneError("The verification was erased.")
    return verification


async def _with_results(tx: Transaction, verifications: Sequence[Verification]) -> Sequence[StoredResult]:
    """Adds the stored results. A malformed one, which no version of the service writes, costs only itself."""
    try:
        return await _read_results(tx, verifications)
    except ValueError:
        if len(verifications) == 1:
            return [StoredResult(verifications[0], is_malformed=True)]
        half = len(verifications) // 2
        return [*await _with_results(tx, verifications[:half]), *await _with_results(tx, verifications[half:])]


async def _read_results(tx: Transaction, verifications: Collection[Verification]) -> Sequence[StoredResult]:
    ids = [verification.id for verification in verifications if verification.state is State.RETRIEVED]
    texts = await tx.results.texts(ids) if ids else {}
    media = await tx.results.media(ids) if ids else {}
    return [StoredResult(one, texts.get(one.id), media.get(one.id, ())) for one in verifications]


def _foreign_client() -> ForbiddenError:
    return ForbiddenError("This API key may only search its own client's verifications.")


def _page(results: Sequence[Result], found: Sequence[Verification], order: Order) -> ResultPage:
    """Builds a page. One more verification than results means that another page follows."""
    if len(found) == len(results):
        return ResultPage(results, None)
    last = found[len(results) - 1]
    position = Position(last.id, getattr(last, order.field) if order.field else None)
    return ResultPage(results, encode_cursor(position, order))
