"""A result belongs to the run whose state brought its token only if it contains the nonce of that run."""

from dataclasses import replace
from datetime import timedelta

import pytest

from app.domain.detection import Detection
from app.domain.redirect_state import LIFETIME, is_foreign
from tests.support.rows import MINIMAL


def test_state_is_valid_for_a_day() -> None:
    assert timedelta(days=1) == LIFETIME


@pytest.mark.parametrize(
    ("nonce", "detection", "foreign"),
    [
        pytest.param(None, Detection(err_code=0), False, id="no nonce expected"),
        pytest.param("n", None, False, id="without the text there is nothing to compare"),
        pytest.param("n", Detection(err_code=0, extra="n"), False, id="passed, with the nonce"),
        pytest.param("n", Detection(err_code=0, extra="m"), True, id="passed, with another"),
        pytest.param("n", Detection(err_code=0), True, id="passed, without any"),
        pytest.param("n", Detection(err_code=2016), True, id="failed, without any"),
        pytest.param("n", Detection(), False, id="unfinished, without any field"),
        pytest.param("n", Detection(err_code=17, extra="n"), False, id="unfinished, with the nonce"),
        pytest.param("n", Detection(err_code=17, extra="m"), True, id="unfinished, with another"),
    ],
)
def test_finished_result_without_the_nonce_is_foreign(
    nonce: str | None, detection: Detection | None, foreign: bool
) -> None:
    assert is_foreign(replace(MINIMAL, nonce=nonce), detection) is foreign
