"""Error codes that Tencent documents, our own, and unknown ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.decision import ErrorClass
from app.faceid import error_codes as codes
from app.faceid.error_codes import ENDPOINT, KEY_PAIR, Meaning, advice, classify, meaning_of
from tests.support.error_codes import CODES, TABLE

# Our own codes are never prefixes.
FAMILIES = sorted(code for code, _ in CODES if code[0].isupper())


@pytest.mark.parametrize(("code", "error_class"), CODES)
def test_documented_code_has_its_class(code: str, error_class: ErrorClass) -> None:
    assert classify(code) is error_class


def test_every_error_class_has_a_code() -> None:
    assert set(TABLE) == set(ErrorClass)


@pytest.mark.parametrize("code", ["", ".", "Unheard", "Unheard.Of", "invalidparameter", "InvalidParameterX", "http"])
def test_unknown_code_is_retried(code: str) -> None:
    assert classify(code) is ErrorClass.RETRY


@given(family=st.sampled_from(FAMILIES), tails=st.lists(st.from_regex(r"[A-Z]{3}[a-z]{6}", fullmatch=True), max_size=3))
def test_unknown_code_has_the_class_of_its_longest_known_prefix(family: str, tails: list[str]) -> None:
    assert classify(".".join([family, *tails])) is dict(CODES)[family]


@given(code=st.text())
def test_undocumented_text_is_always_retried(code: str) -> None:
    assert classify(code) is dict(CODES).get(code, ErrorClass.RETRY)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("http.502", ENDPOINT),
        (codes.TIMED_OUT, ENDPOINT),
        ("AuthFailure", KEY_PAIR),
        ("AuthFailure.Unheard", KEY_PAIR),
        ("UnauthorizedOperation.Arrears.Unheard", "Pay the Tencent Cloud account's bill."),
        ("AuthFailureUnheard", None),
        ("InternalError", None),
        ("Unheard", None),
    ],
)
def test_advice_follows_the_same_prefix_as_the_class(code: str, expected: str | None) -> None:
    assert advice(code) == expected
    assert meaning_of(code) == Meaning(classify(code), expected)


@pytest.mark.parametrize("error_class", [ErrorClass.ACCOUNT, ErrorClass.RULE, ErrorClass.CLOCK])
def test_every_code_that_needs_an_operator_has_advice(error_class: ErrorClass) -> None:
    assert all(advice(code) for code in TABLE[error_class])
