"""The digest of a result: a keyed value in the row of the verification that binds all rows of its result.

It shows that no value was changed or removed, and that no row comes from an earlier result. It has parts: each reader
verifies those that it reads, and each change computes only its own again:

    text       the readable columns of the text and its liveness attempts, and the masked identity
    identity   their encrypted columns
    indexes    the digests by which the person is found
    media      the rows of the media, as a sum: items are added and subtracted without reading the others
    whole      the values of the verification, and the parts
"""

import hashlib
import hmac
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from app.domain.detection import Detection, LivenessAttempt, SealedText, personal
from app.domain.media import MediaItem, MediaRow
from app.domain.verification import State, Verification
from app.sealing.aead import TamperedDataError, context_of

SETTLED = {State.RETRIEVED, State.FAILED, State.EXPIRED}
"""The states whose rows have a digest. Before them there is nothing to bind, and after an erasure nothing is left."""

# 128 bits: no successful guess.
_BYTES = 16
_MODULUS = 1 << (8 * _BYTES)
_NOTHING = bytes(_BYTES)
_COVERED = (
    *("id", "client", "biz_token", "rule_id", "subject_ref", "purpose", "callback_extra"),
    *("state", "outcome", "provisional", "retrieved_at", "unreadable", "revision"),
)
_GET_COVERED, _GET_MEDIA_ROW = attrgetter(*_COVERED), attrgetter(*MediaRow._fields)
_PERSONAL = {kind: sorted(personal(kind)) for kind in (Detection, LivenessAttempt)}
_READABLE = {
    kind: [field.name for field in fields(kind) if field.repr and field.name != "liveness_attempts"]
    for kind in (Detection, LivenessAttempt)
}
_READABLE_TEXT = (*_READABLE[Detection], "masked")
_INDEXES = ("id_card_index", "person_index")


class Parts(NamedTuple):
    """The parts of a digest, except the whole."""

    text: bytes = _NOTHING
    identity: bytes = _NOTHING
    indexes: bytes = _NOTHING
    media: bytes = _NOTHING


def covered_values(verification: Verification) -> tuple[object, ...]:
    """Returns the values of the row that its digest covers."""
    values: tuple[object, ...] = _GET_COVERED(verification)
    return values


class ResultDigest:
    """Computes the digest of one verification, with a key that is derived from the verification's own."""

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, context_of("result_digest"), hashlib.sha256)

    def parts_of(self, verification: Verification) -> Parts:
        """Returns the stored parts.

        Raises:
            TamperedDataError: the digest is missing, or a value that it covers was changed.
        """
        stored = verification.digest or b""
        parts = Parts(*(stored[start : start + _BYTES] for start in range(0, _BYTES * len(Parts._fields), _BYTES)))
        if not hmac.compare_digest(stored, self.seal(verification, parts)):
            raise TamperedDataError
        return parts

    def seal(self, verification: Verification, parts: Parts) -> bytes:
        """Returns the digest to store: the parts, and what binds them to the row."""
        values = _present(dict(zip(_COVERED, covered_values(verification), strict=True)), _COVERED)
        return b"".join(parts) + self._mac("whole", [values, parts])

    def replaced(self, parts: Parts, text: SealedText) -> Parts:
        """Returns the parts after the text was replaced by this one."""
        return Parts(self.text(text), self.identity(text), self.indexes(text.values), parts.media)

    def text(self, text: SealedText) -> bytes:
        """Returns the part of the readable text and the masked identity."""
        values = _present(text.values, _READABLE_TEXT)
        return self._mac("text", [values, [_present(each, _READABLE[LivenessAttempt]) for each in text.attempts]])

    def identity(self, text: SealedText) -> bytes:
        """Returns the part of the encrypted text."""
        values = _present(text.values, _PERSONAL[Detection])
        attempts = [_present(each, _PERSONAL[LivenessAttempt]) for each in text.attempts]
        return self._mac("identity", [values, attempts])

    def indexes(self, columns: Mapping[str, Any]) -> bytes:
        """Returns the part of the digests by which the person is found."""
        return self._mac("indexes", _present(columns, _INDEXES))

    def media(
        self,
        before: bytes = _NOTHING,
        *,
        added: Iterable[MediaItem | MediaRow] = (),
        removed: Iterable[MediaItem | MediaRow] = (),
    ) -> bytes:
        """Returns the part of the media after items were added and removed."""
        total = int.from_bytes(before, "big") + sum(map(self._item, added)) - sum(map(self._item, removed))
        return (total % _MODULUS).to_bytes(_BYTES, "big")

    def _item(self, item: MediaItem | MediaRow) -> int:
        # The wrapped key is bound to the same values.
        return int.from_bytes(self._mac("media", _GET_MEDIA_ROW(item)), "big")

    def _mac(self, part: str, values: object) -> bytes:
        return hmac.digest(self._key, msgspec.msgpack.encode([part, values]), hashlib.sha256)[:_BYTES]


def _present(columns: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns the columns that have a value. A column that a later version adds is empty and changes no digest."""
    found = {name: columns.get(name) for name in names}
    return {name: value for name, value in found.items() if value is not None and value is not False}
