"""Tests of the columns and rows of an export."""

from dataclasses import replace
from datetime import UTC, datetime

from app.domain.detection import Detection, Outcome
from app.domain.export import columns, identity_columns, row_of
from app.domain.media import MediaItem, MediaKind
from app.domain.personal import Masked
from app.domain.verification import Result, State, Verification

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
VERIFICATION = Verification(
    client="shop",
    biz_token="token-1",
    rule_id="1",
    subject_ref="loan-1",
    state=State.RETRIEVED,
    outcome=Outcome.PASSED,
    received_at=NOW,
    retrieved_at=NOW,
    updated_at=NOW,
    attempts=2,
    due_at=None,
    deadline_at=NOW,
)
MEDIA = tuple(
    MediaItem(
        kind=kind, object_key="k", content_type="image/jpeg", size_bytes=1, sha256="0", sealed_key=b"", stored_at=NOW
    )
    for kind in (MediaKind.BEST_FRAME, MediaKind.LIVENESS_VIDEO)
)
DETECTION = Detection(
    err_code=0, err_msg="成功", sim="96.42", name="张三", id_card="000000200001010000", ocr_nation="汉"
)
RESULT = Result(verification=VERIFICATION, detection=DETECTION, masked=Masked(name="张*"), media=MEDIA)


def cells(result: Result, *, is_revealed: bool) -> dict[str, object]:
    return dict(zip(columns(is_revealed=is_revealed), row_of(result, is_revealed=is_revealed), strict=True))


def test_masked_row_has_the_mask_and_no_personal_value() -> None:
    row = cells(RESULT, is_revealed=False)

    assert {name: value for name, value in row.items() if value is not None} == {
        "client": "shop",
        "biz_token": "token-1",
        "rule_id": "1",
        "subject_ref": "loan-1",
        "state": "retrieved",
        "outcome": "passed",
        "provisional": False,
        "err_code": 0,
        "err_msg": "成功",
        "similarity": 96.42,
        "name": "张*",
        "media": "best_frame liveness_video",
        "attempts": 2,
        "received_at": NOW,
        "retrieved_at": NOW,
        "updated_at": NOW,
        "retain_until": VERIFICATION.retain_until,
        "legal_hold": False,
        "altered": False,
    }


def test_revealed_row_has_the_identity_as_tencent_sent_it() -> None:
    row = cells(RESULT, is_revealed=True)

    revealed = {name: row[name] for name in identity_columns(is_revealed=True) if row[name] is not None}
    assert revealed == {"name": "张三", "id_card": "000000200001010000", "ocr_nation": "汉"}


def test_altered_result_has_no_values() -> None:
    altered = replace(RESULT, detection=None, masked=Masked(), media=(), is_altered=True)

    row = cells(altered, is_revealed=False)

    assert row["altered"] is True
    assert {row[name] for name in ("err_code", "name", "media")} == {None}
