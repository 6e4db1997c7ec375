"""The columns of an export, and the row of a verification."""

from collections.abc import Sequence
from datetime import datetime

from app.domain.detection import Detection
from app.domain.verification import Result

_FACTS = ("client", "biz_token", "rule_id", "subject_ref", "state", "outcome", "provisional")
_VERDICT = (
    *("err_code", "err_msg", "live_status", "live_msg", "compare_status", "compare_msg"),
    *("similarity", "intention_status", "intention_msg"),
)
_MASKED = ("name", "id_card", "ocr_address")
_REVEALED = (
    *("name", "id_card", "ocr_name", "ocr_id_card", "ocr_gender", "ocr_nation", "ocr_birth"),
    *("ocr_address", "ocr_authority", "ocr_valid_date", "location", "extra"),
)
_PROGRESS = (
    *("attempts", "last_error_code", "created_at", "registered_at", "received_at", "retrieved_at"),
    *("updated_at", "retain_until", "legal_hold"),
)


def identity_columns(*, is_revealed: bool) -> Sequence[str]:
    """Returns the columns of the identity: masked, or as Tencent sent them."""
    return _REVEALED if is_revealed else _MASKED


def columns(*, is_revealed: bool) -> Sequence[str]:
    """Returns all columns, in their order. `media` are the kinds of the stored media, separated by blanks."""
    return (*_FACTS, *_VERDICT, *identity_columns(is_revealed=is_revealed), "media", *_PROGRESS, "altered")


def row_of(result: Result, *, is_revealed: bool) -> Sequence[str | int | float | bool | datetime | None]:
    """Returns the cells of a verification. Absent values are None."""
    verification, detection = result.verification, result.detection or Detection()
    identity = detection if is_revealed else result.masked
    return (
        *(getattr(verification, name) for name in _FACTS),
        *(getattr(detection, name) for name in _VERDICT),
        *(getattr(identity, name) for name in identity_columns(is_revealed=is_revealed)),
        " ".join(item.kind for item in result.media) or None,
        *(getattr(verification, name) for name in _PROGRESS),
        result.is_altered,
    )
