"""Encryption of personal data: combines keys, fields and rows.

Each verification has its own key, wrapped by the identity ring and bound to its client and BizToken. Each personal
value is encrypted under that key and bound to its table, column and row. Each media item has its own key too, wrapped
by the biometric ring and bound to all values of its row.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from app.domain.detection import MESSAGES, Detection, LivenessAttempt, SealedText, personal
from app.domain.media import MediaItem, MediaRow
from app.domain.personal import Masked, former_names, masked, normal_id_card, normal_name
from app.domain.verification import State, Verification
from app.sealing.aead import TamperedDataError, fresh_key
from app.sealing.alarm import Alarm
from app.sealing.blobs import open_blob
from app.sealing.digests import SETTLED, Parts, ResultDigest, covered_values
from app.sealing.fields import FieldCipher
from app.sealing.keyring import KeyRing, Ring

_VERIFICATION, _DETECTION, _ATTEMPT = "verification", "detection", "liveness_attempt"
_NAMES = {kind: [field.name for field in fields(kind)] for kind in (Detection, LivenessAttempt)}
_PERSONAL = {kind: personal(kind) for kind in _NAMES}
# All other personal fields are texts.
_SHAPES: dict[str, Any] = {"further": dict[str, object]}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown(Masked):
    """The values that every reader of a result sees, in one encrypted column: the masked identity and the messages.

    `messages` are those of `MESSAGES`, then one for each liveness attempt; None in rows of earlier versions, which have
    them in readable columns.
    """

    messages: Sequence[str | None] | None = None


@dataclass(frozen=True, slots=True)
class PersonalDataCipher:
    """Encrypts and decrypts personal data.

    Callers must commit the audit row before anything decrypted leaves them; reading the masked values needs none. Every
    decryption raises `TamperedDataError` if the stored value is not the one that was sealed, after the alarm.
    """

    keyring: KeyRing
    alarm: Alarm = field(default_factory=Alarm)

    def new_key(self, client: str, biz_token: str) -> bytes:
        """Returns a new wrapped key for a verification."""
        return self.keyring.wrap(Ring.IDENTITY, fresh_key(), _VERIFICATION, client, biz_token)

    def rewrapped(
        self, verification: Verification, text: SealedText | None = None, media: Sequence[MediaItem] = ()
    ) -> Verification:
        """Returns the verification with its key wrapped by the newest version of the ring.

        A row from before the digests gets one, of its result as it is stored. For other rows the result is not needed.
        """
        with self._alarmed(verification):
            key = self._key(verification)
            wrapped = self.keyring.wrap(Ring.IDENTITY, key, *_owner(verification))
            after = replace(verification, sealed_key=wrapped)
            has_digest = verification.sealed_key is not None and self.keyring.has_digest(verification.sealed_key)
            if has_digest or verification.state not in SETTLED or not self.keyring.has_digest(wrapped):
                return after
            digest = ResultDigest(key)
            parts = digest.replaced(Parts(), text) if text else Parts()
            return replace(after, digest=digest.seal(after, parts._replace(media=digest.media(added=media))))

    def seal_extra(self, verification: Verification, extra: str | None) -> bytes | None:
        """Encrypts a callback's Extra; None if there is none or the verification was erased."""
        if extra is None or verification.sealed_key is None:
            return None
        with self._alarmed(verification):
            return self._fields(verification).seal(extra, _VERIFICATION, "callback_extra", verification.biz_token)

    def open_extra(self, verification: Verification) -> str | None:
        """Decrypts the callback's Extra."""
        if verification.callback_extra is None:
            return None
        place = (_VERIFICATION, "callback_extra", verification.biz_token)
        with self._alarmed(verification):
            return self._fields(verification).open(verification.callback_extra, str, *place)

    def seal_text(self, verification: Verification, detection: Detection) -> SealedText:
        """Encrypts the personal fields and messages of a result, and computes its masked identity and indexes."""
        with self._alarmed(verification):
            cipher, row = self._fields(verification), verification.biz_token
        values = _sealed(cipher, detection, _DETECTION, row)
        shown = {"messages": _messages_of(detection)} | asdict(masked(detection))
        values["masked"] = cipher.seal(shown, _DETECTION, "masked", row)
        attempts = [
            _sealed(cipher, attempt, _ATTEMPT, f"{row}/{position}")
            for position, attempt in enumerate(detection.liveness_attempts)
        ]
        return SealedText(values | self.indexes(verification.client, detection), attempts)

    def open_text(self, verification: Verification, text: SealedText) -> Detection:
        """Decrypts a whole text."""
        with self._alarmed(verification):
            cipher = self._fields(verification)
            return _detection(text, _shown(text, cipher, verification), cipher, verification.biz_token)

    def open_verified_text(self, verification: Verification, text: SealedText | None) -> Detection | None:
        """Like `open_text`, after the digest proved that the text is complete and the newest; None without a text."""
        with self._alarmed(verification):
            if key := self._settled_key(verification):
                self._verify(key, verification, text, is_whole=True)
        return self.open_text(verification, text) if text else None

    def open_masked(
        self, verification: Verification, text: SealedText | None, media: Sequence[MediaItem]
    ) -> tuple[Detection | None, Masked]:
        """Returns a text without its personal fields, and the masked identity.

        The digest has proved that both and the media are complete and the newest.
        """
        with self._alarmed(verification):
            if key := self._settled_key(verification):
                self._verify(key, verification, text, media)
            if text is None:
                return None, Masked()
            shown = _shown(text, FieldCipher(key or self._key(verification)), verification)
            identity = {name: getattr(shown, name) for name in Masked.__dataclass_fields__}
            return _detection(text, shown), Masked(**identity)

    def verify(self, verification: Verification, text: SealedText | None, media: Sequence[MediaItem]) -> None:
        """Raises TamperedDataError, after the alarm, unless the result is complete and the newest."""
        with self._alarmed(verification):
            if key := self._settled_key(verification):
                self._verify(key, verification, text, media)

    def with_digest(
        self,
        before: Verification,
        after: Verification,
        *,
        text: SealedText | None = None,
        indexes: Mapping[str, bytes | None] | None = None,
        added: Collection[MediaItem] = (),
        removed: Collection[MediaRow] = (),
    ) -> Verification:
        """Returns the changed row with the digest that covers it.

        A row that is altered stays altered: the digest of its changed values would hide that. Raises the alarm then.

        Args:
            before: the locked row.
            after: the row after the change.
            text: the text that replaces the earlier one; None to keep it.
            indexes: the new digests of the person, if only they change.
            added: the media that are added.
            removed: the media that are removed.
        """
        is_same = text is None and indexes is None and not added and not removed
        if after.state not in SETTLED or (is_same and covered_values(before) == covered_values(after)):
            return after
        try:
            with self._alarmed(after):
                return self._with_digest(before, after, text, indexes, added, removed)
        except TamperedDataError:
            return after

    def _with_digest(
        self,
        before: Verification,
        after: Verification,
        text: SealedText | None,
        indexes: Mapping[str, bytes | None] | None,
        added: Collection[MediaItem],
        removed: Collection[MediaRow],
    ) -> Verification:
        if before.state not in SETTLED and after.digest is not None:
            # Nothing was bound before, so a malformed value was the progress of the retrieval.
            after = replace(after, digest=None)
        key = self._settled_key(after)
        if key is None:
            return after
        digest = ResultDigest(key)
        parts = digest.parts_of(before) if before.state in SETTLED else Parts()
        if text:
            parts = digest.replaced(parts, text)
        if indexes is not None:
            parts = parts._replace(indexes=digest.indexes(indexes))
        parts = parts._replace(media=digest.media(parts.media, added=added, removed=removed))
        return replace(after, digest=digest.seal(after, parts))

    def _settled_key(self, verification: Verification) -> bytes | None:
        """Returns the key of a row that must have a digest; None for rows without a result and for older ones.

        Raises:
            TamperedDataError: the row has a value that no version of the service writes, or an altered key.
        """
        if verification.is_malformed:
            raise TamperedDataError
        if verification.state not in SETTLED:
            return None
        if verification.sealed_key is not None and not self.keyring.has_digest(verification.sealed_key):
            return None
        return self._key(verification)

    def _verify(
        self,
        key: bytes,
        verification: Verification,
        text: SealedText | None,
        media: Sequence[MediaItem] | None = None,
        *,
        is_whole: bool = False,
    ) -> None:
        """Compares what was read with the digest: the text, with `is_whole` its identity too, and the media if given.

        Raises:
            TamperedDataError: a value or a row was changed, removed, or taken from an earlier result.
        """
        digest = ResultDigest(key)
        stored = found = digest.parts_of(verification)
        if verification.state is not State.RETRIEVED:
            return
        found = found._replace(text=Parts().text, indexes=Parts().indexes)
        if text:
            found = found._replace(text=digest.text(text), indexes=digest.indexes(text.values))
        if is_whole:
            found = found._replace(identity=digest.identity(text) if text else Parts().identity)
        if media is not None:
            found = found._replace(media=digest.media(added=media))
        if found != stored:
            raise TamperedDataError

    def indexes(self, client: str, detection: Detection) -> dict[str, bytes | None]:
        """Returns the digests by which a person's text can be found."""
        id_card = normal_id_card(detection.id_card or detection.ocr_id_card)
        name = normal_name(detection.name or detection.ocr_name)
        return {
            "id_card_index": self.keyring.mac("id_card", client, id_card) if id_card else None,
            "person_index": self.keyring.mac("person", client, id_card, name) if id_card and name else None,
        }

    def find_by(self, client: str, id_card: str, name: str | None) -> tuple[str, Sequence[bytes]]:
        """Returns the index column for an ID number, or number and name, and its digests by all key versions.

        They include the digests of earlier versions, whose normal form of names kept the spelling of middle dots.
        """
        number, normalised_name = normal_id_card(id_card) or "", normal_name(name)
        if name is None or normalised_name is None:
            return "id_card_index", self.keyring.macs("id_card", client, number)
        names = sorted({normalised_name} | former_names(name))
        return "person_index", [mac for one in names for mac in self.keyring.macs("person", client, number, one)]

    def wrap_media_key(self, verification: Verification, item: MediaItem, key: bytes) -> bytes:
        """Wraps the key of a media item, bound to the other values of its row."""
        return self.keyring.wrap(Ring.BIOMETRIC, key, *_bound_values(verification, item))

    def media_key(self, verification: Verification, item: MediaItem) -> bytes:
        """Unwraps the key of a media item."""
        with self._alarmed(verification):
            return self.keyring.unwrap(Ring.BIOMETRIC, item.sealed_key, *_bound_values(verification, item))

    async def open_media(
        self,
        verification: Verification,
        item: MediaItem,
        start: int,
        stop: int,
        read: Callable[[int, int], AsyncIterator[bytes]],
    ) -> AsyncIterator[memoryview]:
        """Yields the bytes of a media item from `start` up to but not including `stop`, each piece verified.

        `read` returns the encrypted bytes between two offsets.
        """
        key = self.media_key(verification, item)
        with self._alarmed(verification):
            async for piece in open_blob(key, item.size_bytes, start, stop, read):
                yield piece

    def tampered(self, verification: Verification) -> TamperedDataError:
        """Raises the alarm, and returns the error to raise."""
        self.alarm.report_verification(verification.id, verification.biz_token)
        return TamperedDataError()

    def _fields(self, verification: Verification) -> FieldCipher:
        return FieldCipher(self._key(verification))

    def _key(self, verification: Verification) -> bytes:
        if verification.sealed_key is None:
            raise TamperedDataError
        return self.keyring.unwrap(Ring.IDENTITY, verification.sealed_key, *_owner(verification))

    @contextmanager
    def _alarmed(self, verification: Verification) -> Iterator[None]:
        try:
            yield
        except TamperedDataError:
            raise self.tampered(verification) from None


def _owner(verification: Verification) -> tuple[str, ...]:
    return _VERIFICATION, verification.client, verification.biz_token


def _bound_values(verification: Verification, item: MediaItem) -> tuple[str, ...]:
    return "media", *_owner(verification), item.kind, item.object_key, item.content_type, str(item.size_bytes)


def _sealed(cipher: FieldCipher, value: Detection | LivenessAttempt, table: str, row: str) -> dict[str, Any]:
    """Returns a value as the columns of its table: absent values are null, personal ones encrypted."""
    columns = {field.name: getattr(value, field.name) for field in fields(value)}
    columns.pop("liveness_attempts", None)
    # Sealed together with the masks (`_Shown`).
    columns |= dict.fromkeys(columns.keys() & set(MESSAGES))
    for name in _PERSONAL[type(value)]:
        columns[name] = cipher.seal(columns[name], table, name, row) if columns[name] else None
    return columns


def _opened(
    cipher: FieldCipher | None, columns: dict[str, Any], kind: type[Any], table: str, row: str
) -> dict[str, Any]:
    """Reverses `_sealed`. Without a cipher the personal values are left out."""
    values = {name: columns[name] for name in _NAMES[kind] if name in columns}
    for name in _PERSONAL[kind]:
        sealed = values.pop(name, None)
        if cipher and sealed is not None:
            values[name] = cipher.open(sealed, _SHAPES.get(name, str), table, name, row)
    return values


def _messages_of(detection: Detection) -> Sequence[str | None]:
    messages = [getattr(detection, name) for name in MESSAGES]
    return [*messages, *(attempt.err_msg for attempt in detection.liveness_attempts)]


def _shown(text: SealedText, cipher: FieldCipher, verification: Verification) -> _Shown:
    return cipher.open(text.values["masked"], _Shown, _DETECTION, "masked", verification.biz_token)


def _detection(text: SealedText, shown: _Shown, cipher: FieldCipher | None = None, row: str = "") -> Detection:
    attempts = [
        LivenessAttempt(**_opened(cipher, dict(columns), LivenessAttempt, _ATTEMPT, f"{row}/{position}"))
        for position, columns in enumerate(text.attempts)
    ]
    detection = Detection(**_opened(cipher, dict(text.values), Detection, _DETECTION, row))
    if shown.messages is not None:
        messages = iter(shown.messages)
        named: dict[str, Any] = {name: next(messages, None) for name in MESSAGES}
        detection = replace(detection, **named)
        attempts = [replace(attempt, err_msg=next(messages, None)) for attempt in attempts]
    return replace(detection, liveness_attempts=tuple(attempts))
