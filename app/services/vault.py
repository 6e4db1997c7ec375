"""What is sealed of a verification, and how: the one place that puts keys, fields and rows together.

Every verification has a key of its own, wrapped by the ring's identity key and bound to its client and BizToken; each
personal value is sealed under it and bound to its table, column and row. Each medium has a key of its own as well,
wrapped by the biometric key and bound to all that its row says of it.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from app.domain.detection import Detection, LivenessAttempt, Medium, personal
from app.domain.finding import normal_id_card, normal_name
from app.domain.masking import Masked, masked
from app.domain.verification import Verification
from app.errors import SetUpError
from app.sealing.aead import AlteredError, altered, fresh_key
from app.sealing.blobs import open_blob
from app.sealing.fields import Fields
from app.sealing.keyring import KeyRing, Ring
from app.storage.database import Database
from app.storage.media import MediaStore
from app.storage.results import SealedText
from app.storage.verifications import VerificationStore

_VERIFICATION, _DETECTION, _ATTEMPT = "verification", "detection", "liveness_attempt"
_NAMES = {kind: [field.name for field in fields(kind)] for kind in (Detection, LivenessAttempt)}
_PERSONAL = {kind: personal(kind) for kind in _NAMES}
_SHAPES: dict[str, Any] = {"further": dict[str, object]}  # all else is text


class Vault:
    """Seals and opens what is personal. Whoever calls what opens writes the audit first, but for what is masked.

    Everything that opens raises `AlteredError` where what is stored is not what was sealed.
    """

    def __init__(self, keyring: KeyRing) -> None:
        self.keyring = keyring

    def new_key(self, client: str, biz_token: str) -> bytes:
        """The sealed key of a verification that is new."""
        return self.keyring.wrap(Ring.IDENTITY, fresh_key(), _VERIFICATION, client, biz_token)

    def rewrapped_key(self, verification: Verification) -> bytes:
        """The same key, sealed by the ring's newest version."""
        return self.keyring.wrap(Ring.IDENTITY, self._key(verification), *_owner(verification))

    def seal_extra(self, verification: Verification, extra: str | None) -> bytes | None:
        """What came with a callback; nothing for what was erased."""
        if extra is None or verification.sealed_key is None:
            return None
        return self._fields(verification).seal(extra, _VERIFICATION, "callback_extra", verification.biz_token)

    def open_extra(self, verification: Verification) -> str | None:
        """What came with the callback."""
        if verification.callback_extra is None:
            return None
        place = (_VERIFICATION, "callback_extra", verification.biz_token)
        return self._fields(verification).open(verification.callback_extra, str, *place)

    def seal_text(self, verification: Verification, detection: Detection) -> SealedText:
        """A text as it is stored."""
        sealer, row = self._fields(verification), verification.biz_token
        values = _sealed(sealer, detection, _DETECTION, row)
        values["masked"] = sealer.seal(masked(detection), _DETECTION, "masked", row)
        attempts = [
            _sealed(sealer, attempt, _ATTEMPT, f"{row}/{position}")
            for position, attempt in enumerate(detection.liveness_attempts)
        ]
        return SealedText(values | self.indexes(verification.client, detection), attempts)

    def open_text(self, verification: Verification, text: SealedText) -> Detection:
        """The whole text."""
        return _detection(text, self._fields(verification), verification.biz_token)

    def look_at(self, verification: Verification, text: SealedText) -> tuple[Detection, Masked]:
        """A text without what is personal, and what may be shown of the person instead."""
        place = (_DETECTION, "masked", verification.biz_token)
        return _detection(text), self._fields(verification).open(text.values["masked"], Masked, *place)

    def indexes(self, client: str, detection: Detection) -> dict[str, bytes | None]:
        """What a text is found by (`by_id_card`, `by_person`)."""
        id_card = normal_id_card(detection.id_card or detection.ocr_id_card)
        name = normal_name(detection.name or detection.ocr_name)
        return {
            "id_card_index": self.keyring.mac("id_card", client, id_card) if id_card else None,
            "person_index": self.keyring.mac("person", client, id_card, name) if id_card and name else None,
        }

    def find_by(self, client: str, id_card: str, name: str | None) -> tuple[str, Sequence[bytes]]:
        """The index that an ID number, or it and a name, are found by, and the values that they may have there."""
        number, called = normal_id_card(id_card) or "", normal_name(name)
        if called is None:
            return "id_card_index", self.keyring.macs("id_card", client, number)
        return "person_index", self.keyring.macs("person", client, number, called)

    def wrap_medium_key(self, verification: Verification, medium: Medium, key: bytes) -> bytes:
        """The key of a medium, sealed for what the row says of it."""
        return self.keyring.wrap(Ring.BIOMETRIC, key, *_place_of(verification, medium))

    def medium_key(self, verification: Verification, medium: Medium) -> bytes:
        """The key of a medium."""
        return self.keyring.unwrap(Ring.BIOMETRIC, medium.sealed_key, *_place_of(verification, medium))

    def open_medium(
        self, verification: Verification, medium: Medium, media: MediaStore, start: int, stop: int
    ) -> AsyncIterator[memoryview]:
        """The bytes of a medium from `start` to before `stop`, each piece verified before it is given out."""
        key = self.medium_key(verification, medium)
        return open_blob(key, medium.size_bytes, start, stop, lambda a, z: media.open(medium.object_key, a, z))

    def _fields(self, verification: Verification) -> Fields:
        return Fields(self._key(verification))

    def _key(self, verification: Verification) -> bytes:
        if verification.sealed_key is None:
            raise altered()
        return self.keyring.unwrap(Ring.IDENTITY, verification.sealed_key, *_owner(verification))


def _owner(verification: Verification) -> tuple[str, ...]:
    return _VERIFICATION, verification.client, verification.biz_token


def _place_of(verification: Verification, medium: Medium) -> tuple[str, ...]:
    return "media", *_owner(verification), medium.kind, medium.object_key, medium.content_type, str(medium.size_bytes)


def _sealed(sealer: Fields, value: Detection | LivenessAttempt, table: str, row: str) -> dict[str, Any]:
    """A value as the columns of its table: what is absent is null, what is personal is sealed."""
    columns = {field.name: getattr(value, field.name) for field in fields(value)}
    columns.pop("liveness_attempts", None)
    for name in _PERSONAL[type(value)]:
        columns[name] = sealer.seal(columns[name], table, name, row) if columns[name] else None
    return columns


def _opened(sealer: Fields | None, columns: dict[str, Any], kind: type[Any], table: str, row: str) -> dict[str, Any]:
    """The arguments of the value that `_sealed` was given; without a sealer, those only that are not personal."""
    values = {name: columns[name] for name in _NAMES[kind] if name in columns}
    for name in _PERSONAL[kind]:
        sealed = values.pop(name, None)
        if sealer and sealed is not None:
            values[name] = sealer.open(sealed, _SHAPES.get(name, str), table, name, row)
    return values


def _detection(text: SealedText, sealer: Fields | None = None, row: str = "") -> Detection:
    attempts = tuple(
        LivenessAttempt(**_opened(sealer, dict(columns), LivenessAttempt, _ATTEMPT, f"{row}/{position}"))
        for position, columns in enumerate(text.attempts)
    )
    values = _opened(sealer, dict(text.values), Detection, _DETECTION, row)
    return Detection(**values, liveness_attempts=attempts)


async def open_keyring(path: Path, database: Database) -> KeyRing:
    """The key ring of this database. The embedded database gets a new one with its first start, and only then.

    Raises:
        SetUpError: there is none, or it is not the one that the database was sealed with.
    """
    async with database.read() as tx:
        newest = await VerificationStore().newest_sealed(tx)
    keyring = KeyRing.create(path) if database.is_embedded and newest is None else KeyRing(path)
    try:
        if newest:
            Vault(keyring).rewrapped_key(newest)
    except AlteredError:
        raise SetUpError("KEYRING_FILE is another key ring than the one that the database was sealed with.") from None
    return keyring
