"""Disclosures of the console: recorded once, then visible to one session for ten minutes.

A page is loaded again after a form, and a video asks for many ranges. The grant replaces an audit row for each of them.
It is signed by the key ring and stored nowhere.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from itsdangerous import BadSignature, URLSafeSerializer

from app.domain.api_key import Actor, Scope
from app.domain.audit import Action
from app.domain.grant import LIFETIME, Grant, Wanted
from app.domain.media import MediaKind
from app.domain.rate import RateClass
from app.domain.verification import Result, State
from app.errors import GoneError, InvalidRequestError, NotFoundError
from app.sealing.keyring import KeyRing
from app.sealing.personal_data import PersonalDataCipher
from app.services.audit import AuditService
from app.services.media import FoundMedia, MediaService
from app.services.read import ReadService
from app.services.sessions import SignedIn
from app.services.visibility import find_visible, require_scope
from app.storage.database import Database

_PURPOSE = "console_grant"
_MAX_TEXT = 1024


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class DisclosureService:
    """Discloses to a session of the console, and shows again what was disclosed."""

    database: Database
    read: ReadService
    media: MediaService
    cipher: PersonalDataCipher
    keyring: KeyRing
    audit: AuditService
    clock: Callable[[], datetime]

    async def disclose(
        self, actor: Actor, signed_in: SignedIn, biz_token: str, wanted: Collection[Wanted], *, client: str | None
    ) -> str:
        """Records a disclosure and returns the text of its grant. Identity and media have one audit row each.

        Args:
            actor: who wants to see it, with the purpose.
            signed_in: the session that will show it.
            biz_token: the token of the verification.
            wanted: what to disclose.
            client: whose verification is meant: see `choose_visible`, which raises the errors.

        Raises:
            ForbiddenError: the caller lacks a scope. The audit records that.
            InvalidRequestError: the purpose is missing, or nothing is wanted.
            NotFoundError: there are no media of this kind.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        if not actor.purpose or not wanted:
            raise InvalidRequestError("Choose what to show and state a purpose.")
        kinds = await self._kinds(actor, biz_token, wanted, client)
        if Wanted.IDENTITY in wanted:
            known = (await self.read.reveal(actor, biz_token, client=client)).verification
        else:
            known = (await self.read.load(actor, biz_token, client=client)).verification
        if kinds:
            await self.audit.record_now(self.audit.describe(actor, Action.MEDIA, verification=known, fields=kinds))
        letters, end = "".join(sorted(wanted)), int((self.clock() + LIFETIME).timestamp())
        values = [_name_of(signed_in), known.client, known.biz_token, known.revision, letters, end]
        return str(self._serializer().dumps(values))

    async def _kinds(
        self, actor: Actor, biz_token: str, wanted: Collection[Wanted], client: str | None
    ) -> Collection[MediaKind]:
        """Returns the kinds of the wanted media. Raises the errors of `disclose`."""
        if not set(wanted) - {Wanted.IDENTITY}:
            return []
        self.read.limits.admit(actor.caller, RateClass.MEDIA)
        await self.audit.require_recorded(actor, Scope.MEDIA_READ, Action.MEDIA)
        stored = await self.read.load(actor, biz_token, client=client)
        self.cipher.verify(stored.verification, stored.text, stored.media)
        kinds = [item.kind for item in stored.media if any(each.covers(item) for each in wanted)]
        if not kinds:
            raise NotFoundError("The verification has no such media item.")
        return kinds

    def find(self, signed_in: SignedIn, text: str) -> Grant | None:
        """Returns the grant of a text; None if it is not ours, belongs to another session, or has expired."""
        if len(text) > _MAX_TEXT:
            return None
        try:
            session, client, biz_token, revision, letters, end = self._serializer().loads(text)
        except BadSignature:
            return None
        grant = Grant(
            session=session,
            client=client,
            biz_token=biz_token,
            revision=revision,
            wanted=frozenset(map(Wanted, letters)),
            expires_at=datetime.fromtimestamp(end, UTC),
        )
        return grant if self.clock() < grant.expires_at and session == _name_of(signed_in) else None

    async def identity(self, actor: Actor, grant: Grant) -> Result | None:
        """Returns the unmasked result again; None if the grant does not cover it, or a newer result replaced it.

        Raises:
            ForbiddenError: the caller has lost the scope.
            GoneError: it was erased.
            NotFoundError: the caller cannot see the verification.
        """
        if not grant.has_identity:
            return None
        require_scope(actor.caller, Scope.RESULTS_REVEAL)
        async with self.database.read() as tx:
            known = await find_visible(tx, actor.caller, grant.biz_token, grant.client)
            if known.state is State.ERASED:
                raise GoneError("The verification was erased.")
            if known.revision != grant.revision:
                return None
            text = (await tx.results.texts([known.id], sealed=True)).get(known.id)
        return Result(verification=known, detection=self.cipher.open_verified_text(known, text))

    async def find_media(self, actor: Actor, grant: Grant, kind: MediaKind) -> FoundMedia:
        """Returns a media item that the grant covers.

        Raises:
            ForbiddenError: the caller has lost the scope. The audit records that.
            NotFoundError: the grant does not cover it, or a newer result replaced it.
            TooManyRequestsError: the caller has exceeded its rate.
        """
        found = await self.media.find(actor, grant.biz_token, kind, client=grant.client)
        if found.verification.revision != grant.revision or not grant.covers(found.item):
            raise NotFoundError("The verification has no such media item.")
        return found

    async def open_media(self, actor: Actor, found: FoundMedia, start: int, stop: int) -> AsyncIterator[memoryview]:
        """Opens bytes of an item that `find_media` returned. Raises the errors of `MediaService.open`."""
        return await self.media.open_recorded(actor, found, start, stop)

    def _serializer(self) -> URLSafeSerializer:
        """Signs with the newest version of the index ring and verifies with all versions."""
        return URLSafeSerializer(
            list(self.keyring.macs(_PURPOSE)), salt=_PURPOSE, signer_kwargs={"digest_method": hashlib.sha256}
        )


def _name_of(signed_in: SignedIn) -> str:
    return signed_in.session.id_hash.hex()[:32]
