"""Tencent's codes and texts as values: the verdict, the similarity, instants, and InfoType."""

from datetime import UTC, datetime
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.detection import Detection, InfoType, LivenessAttempt, Outcome, Part, instant_of
from tests.support.result_codes import RESULT_CODES


@pytest.mark.parametrize(("err_code", "outcome"), RESULT_CODES)
def test_verdict_follows_the_error_code(err_code: int | None, outcome: Outcome) -> None:
    assert Detection(err_code=err_code).outcome is outcome


@pytest.mark.parametrize("status", [0, 1001, None])
def test_verdict_ignores_the_other_codes(status: int | None) -> None:
    outcomes = [
        Detection(err_code=code, live_status=status, compare_status=status).outcome for code, _ in RESULT_CODES[:4]
    ]

    assert outcomes == [outcome for _, outcome in RESULT_CODES[:4]]


@pytest.mark.parametrize(
    ("sim", "similarity"),
    [
        ("96.42", 96.42),
        ("100", 100.0),
        ("0", 0.0),
        (None, None),
        ("", None),
        ("-", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
    ],
)
def test_similarity_is_a_finite_number_or_absent(sim: str | None, similarity: float | None) -> None:
    assert Detection(sim=sim).similarity == similarity


@pytest.mark.parametrize(
    ("req_time", "requested_at"),
    [
        ("1715327563289", datetime(2024, 5, 10, 7, 52, 43, 289000, tzinfo=UTC)),
        ("0000000000000", datetime(1970, 1, 1, tzinfo=UTC)),
        ("9999999999999", datetime(2286, 11, 20, 17, 46, 39, 999000, tzinfo=UTC)),
        (None, None),
        ("", None),
        ("1715327563", None),
        ("17153275632890", None),
        ("1715327563289\n", None),
        ("１７１５３２７５６３２８９", None),
        ("2024-05-10 07", None),
    ],
)
def test_requested_at_is_13_digits_of_milliseconds_or_absent(
    req_time: str | None, requested_at: datetime | None
) -> None:
    assert instant_of(req_time) == LivenessAttempt(req_time=req_time).requested_at == requested_at


def test_info_type_0_requests_everything() -> None:
    assert InfoType("0").parts == {Part.TEXT, Part.ID_CARD, Part.BEST_FRAME, Part.VIDEO}


@pytest.mark.parametrize("digits", [order for size in (1, 2, 3, 4) for order in permutations("1234", size)])
def test_info_type_requests_the_parts_of_its_digits(digits: tuple[str, ...]) -> None:
    info_type = InfoType("".join(digits))

    assert (info_type.parts, str(info_type)) == (frozenset(map(Part, digits)), "".join(digits))


@given(text=st.text() | st.text("01234"))
def test_info_type_is_0_or_any_of_four_digits_each_once(text: str) -> None:
    orders = {"".join(order) for size in (1, 2, 3, 4) for order in permutations("1234", size)}

    try:
        accepted = str(InfoType(text)) == text
    except ValueError:
        accepted = False

    assert accepted is (text in {"0"} | orders)


@pytest.mark.parametrize("text", ["", "00", "01", "5", "11", "1 2", "12345", "１"])
def test_invalid_info_type_is_explained(text: str) -> None:
    with pytest.raises(ValueError, match=r"InfoType is 0 for everything, or any of the digits 1, 2, 3, 4, each once"):
        InfoType(text)


def test_personal_fields_stay_out_of_repr() -> None:
    attempt = LivenessAttempt(err_code=0, id_card="000000199001011234", name="张三", further={"Seq": "secret"})
    detection = Detection(
        id_card="000000199001011234",
        name="张三",
        ocr_nation="汉",
        ocr_address="secret",
        ocr_birth="1990/1/1",
        ocr_authority="secret",
        ocr_valid_date="secret",
        ocr_name="张三",
        ocr_id_card="000000199001011234",
        ocr_gender="男",
        location="secret",
        extra="secret",
        further={"Mobile": "secret"},
        liveness_attempts=(attempt,),
    )

    assert repr(detection) == (
        "Detection(err_code=None, err_msg=None, live_status=None, live_msg=None, compare_status=None, "
        "compare_msg=None, sim=None, is_intention_required=False, intention_status=None, intention_msg=None, "
        "liveness_attempts=(LivenessAttempt(err_code=0, err_msg=None, req_time=None),))"
    )


@pytest.mark.parametrize(
    ("detection", "has_id_card"),
    [(Detection(), False), (Detection(ocr_name="a"), True), (Detection(ocr_id_card="1"), True)],
)
def test_id_card_was_photographed_if_tencent_recognised_one(detection: Detection, has_id_card: bool) -> None:
    assert detection.has_id_card is has_id_card
